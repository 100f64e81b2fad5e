// One number of the split form of split_master.h.
#ifndef HANLIN_KERNELS_OPTIM_CUDA_SPLIT_MASTER_CUH_
#define HANLIN_KERNELS_OPTIM_CUDA_SPLIT_MASTER_CUH_

#include <cstdint>

namespace hanlin {

__device__ __forceinline__ float JoinMaster(uint16_t high, uint16_t low) {
  const uint32_t bits = static_cast<uint32_t>(high) << 16 | low;
  return __uint_as_float(bits - (static_cast<uint32_t>(low & 0x8000u) << 1));
}

__device__ __forceinline__ void SplitMaster(float value, uint16_t* high, uint16_t* low) {
  // A NaN whose upper half could carry over into another number becomes one that cannot.
  const uint32_t bits = value != value ? 0x7fc00000u : __float_as_uint(value);
  *high = static_cast<uint16_t>((bits + 0x8000u) >> 16);
  *low = static_cast<uint16_t>(bits);
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_OPTIM_CUDA_SPLIT_MASTER_CUH_
