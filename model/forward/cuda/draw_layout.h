// Where the draws of a step lie in one buffer, on the device and in pinned memory: ids, which the
// sampler writes to pinned memory alone, then what is copied when log-probabilities are asked for.
#ifndef HANLIN_MODEL_FORWARD_CUDA_DRAW_LAYOUT_H_
#define HANLIN_MODEL_FORWARD_CUDA_DRAW_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "kernels/sampling/cuda/sample_params.h"

namespace hanlin {

// Offsets in bytes; ids [rows] are at 0.
struct DrawLayout {
  explicit DrawLayout(int32_t rows)
      : logprobs(sizeof(int32_t) * rows),
        top_ids(logprobs + sizeof(float) * rows),
        top_logprobs(top_ids + sizeof(int32_t) * rows * kSampleMaxLogprobs),
        bytes(top_logprobs + sizeof(float) * rows * kSampleMaxLogprobs) {}

  size_t logprobs;      // float [rows]
  size_t top_ids;       // int32 [rows][kSampleMaxLogprobs]
  size_t top_logprobs;  // float [rows][kSampleMaxLogprobs]
  size_t bytes;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_CUDA_DRAW_LAYOUT_H_
