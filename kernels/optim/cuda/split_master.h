// Master weights in two halves: `high` is the fp32 number rounded to bf16 (halves away from zero),
// which is what products read, and `low` its lower 16 bits, which with `high` give the number back
// exactly. A parameter's master and working copy take 4 bytes together instead of 6. All pointers
// on the device, any alignment of their type; may be captured.
#ifndef HANLIN_KERNELS_OPTIM_CUDA_SPLIT_MASTER_H_
#define HANLIN_KERNELS_OPTIM_CUDA_SPLIT_MASTER_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"

namespace hanlin {

// Elements [from, from + count) of the master to [to, to + count) of another array.
struct MasterRange {
  int64_t from = 0;
  int64_t to = 0;
  int64_t count = 0;
};

cudaError_t LaunchSplitMaster(const float* values, int64_t count, BFloat16* high, uint16_t* low,
                              cudaStream_t stream);

// `ranges` on the device; for vectors, which kernels read in fp32.
cudaError_t LaunchJoinRanges(const BFloat16* high, const uint16_t* low, const MasterRange* ranges,
                             int num_ranges, float* values, cudaStream_t stream);

cudaError_t LaunchJoinMaster(const BFloat16* high, const uint16_t* low, int64_t count,
                             float* values, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_OPTIM_CUDA_SPLIT_MASTER_H_
