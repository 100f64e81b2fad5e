// Rows out of two matrices at once: behind the last attention only the rows whose logits are wanted
// go on. Programmatic dependent launch; may be captured.
#ifndef HANLIN_MODEL_FORWARD_CUDA_GATHER_H_
#define HANLIN_MODEL_FORWARD_CUDA_GATHER_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace hanlin {

struct GatherRows {
  int32_t rows = 0;
  const int32_t* index = nullptr;  // [rows] on the device; negative: zeros
  // Bytes of a row, a multiple of 16; pointers aligned likewise.
  const void* from[2] = {};
  void* to[2] = {};
  size_t row_bytes[2] = {};
};

cudaError_t LaunchGather(const GatherRows& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_CUDA_GATHER_H_
