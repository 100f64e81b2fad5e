// Parameters of embed_train.h, plain data that host and device code share.
#ifndef HANLIN_KERNELS_EMBED_CUDA_EMBED_TRAIN_PARAMS_H_
#define HANLIN_KERNELS_EMBED_CUDA_EMBED_TRAIN_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"

namespace hanlin {

// All pointers on the device, aligned to 16 bytes; "type" is `type`.
struct CudaEmbedTrainParams {
  ComputeType type = ComputeType::kBFloat16;
  int64_t rows = 0;
  int64_t width = 0;                      // a multiple of 8
  const int32_t* ids = nullptr;           // [rows]
  const int32_t* positions = nullptr;     // [rows]
  int64_t vocabulary_begin = 0;           // first id of this shard; others' count as zeros
  int64_t vocabulary_size = 0;            // of this shard
  const void* table = nullptr;            // type [vocabulary_size, width]
  const float* position_table = nullptr;  // [positions, width] or null (zeros)
  void* out = nullptr;                    // type [rows, width]
};

// dtable[ids[r] - begin] += dout[r] for every row whose id is in [begin, begin + size).
struct CudaEmbedBackwardParams {
  ComputeType type = ComputeType::kBFloat16;
  int64_t rows = 0;
  int64_t width = 0;               // a multiple of 8
  const int32_t* ids = nullptr;    // [rows], or positions
  const int32_t* order = nullptr;  // [rows] the rows by ascending id, then row
  int64_t begin = 0;
  int64_t size = 0;
  const void* dout = nullptr;  // type [rows, width]
  float* dtable = nullptr;     // [size, width]
};

cudaError_t LaunchEmbedTrain(const CudaEmbedTrainParams& params, cudaStream_t stream);
cudaError_t LaunchEmbedBackward(const CudaEmbedBackwardParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_EMBED_CUDA_EMBED_TRAIN_PARAMS_H_
