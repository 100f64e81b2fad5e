// Parameters of the embedding on the device, plain data that host and device code share.
#ifndef HANLIN_KERNELS_EMBED_CUDA_EMBED_PARAMS_H_
#define HANLIN_KERNELS_EMBED_CUDA_EMBED_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"

namespace hanlin {

// A copy that the kernel makes on the side: the plan of a step, from pinned memory. `bytes` is a
// multiple of 16, both sides are aligned likewise. When the next kernel starts, early or not, it is
// there.
struct PlanFetch {
  const void* from = nullptr;  // null: nothing
  void* to = nullptr;
  int64_t bytes = 0;
};

struct CudaEmbedParams {
  int64_t rows = 0;   // 0 to 2^31 - 1; none: nothing happens
  int64_t width = 0;  // any; multiples of 4 with 16-byte aligned pointers are fast
  // [rows] on the device or pinned. An id below 0 stands for drawn[-1 - id]: what the sampler drew
  // last.
  const int32_t* ids = nullptr;
  const int32_t* drawn = nullptr;      // [slots], or null when no id is below 0
  const int32_t* positions = nullptr;  // [rows], likewise; -1 marks a padded row: zeros
  int32_t position_offset = 0;         // added to positions of rows that are not padded
  // The rows [vocabulary_begin, vocabulary_begin + vocabulary_rows) of the token table, [rows,
  // width]; other ids contribute zeros.
  const void* table = nullptr;
  ComputeType table_type = ComputeType::kBFloat16;
  int64_t vocabulary_begin = 0;
  int64_t vocabulary_rows = 0;
  // [num_positions, width] or null (tensor-parallel ranks other than 0 leave it out); a position
  // beyond it contributes zeros.
  const float* position_table = nullptr;
  int64_t num_positions = 0;
  float* x = nullptr;  // [rows, width], dense
  PlanFetch fetch;
};

cudaError_t LaunchEmbed(const CudaEmbedParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_EMBED_CUDA_EMBED_PARAMS_H_
