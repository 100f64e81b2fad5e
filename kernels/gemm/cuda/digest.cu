// The sum, modulo 2^64, of a mixture of each word with its place: integers, so that the order in
// which blocks add changes nothing. Runs only where algorithms are chosen.
#include "kernels/gemm/cuda/digest_launch.h"

namespace hanlin {
namespace {

// The finalizer of SplitMix64.
__device__ uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

__global__ void Digest(const uint16_t* data, int64_t words, unsigned long long* digest) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  unsigned long long sum = 0;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < words; i += stride) {
    sum += Mix(static_cast<uint64_t>(i) << 16 | data[i]);
  }
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(~0u, sum, lane);
  if (threadIdx.x % 32 == 0) atomicAdd(digest, sum);
}

}  // namespace

cudaError_t LaunchDigest(const void* data, int64_t words, unsigned long long* digest,
                         cudaStream_t stream) {
  Digest<<<1056, 256, 0, stream>>>(static_cast<const uint16_t*>(data), words, digest);
  return cudaGetLastError();
}

}  // namespace hanlin
