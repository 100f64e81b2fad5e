// What a query's gradients need of its row of out and dout: their product.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_STATISTICS_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_STATISTICS_CUH_

#include <cstdint>

#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/base/cuda/vectors.cuh"

namespace hanlin {

__device__ __forceinline__ float DotBFloat16(uint32_t a, uint32_t b) {
  return LowBFloat16(a) * LowBFloat16(b) + HighBFloat16(a) * HighBFloat16(b);
}
__device__ __forceinline__ float DotBFloat16(uint4 a, uint4 b) {
  return DotBFloat16(a.x, b.x) + DotBFloat16(a.y, b.y) + DotBFloat16(a.z, b.z) +
         DotBFloat16(a.w, b.w);
}

// This lane's part of out, of the two queries of a QueryPair: every fourth vector.
template <int kHeadDim>
struct OutPart {
  static constexpr int kVectors = kHeadDim / 8, kParts = (kVectors + 3) / 4;
  uint4 vectors[2][kParts];

  // `rows`: of out.
  __device__ __forceinline__ OutPart(const HeadRows& rows, int position, int length) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4* const row = rows.first + min(position + 8 * i, length - 1) * rows.stride;
#pragma unroll
      for (int n = 0; n < kParts; ++n) {
        const int vector = threadIdx.x % 4 + 4 * n;
        if (vector < kVectors) vectors[i][n] = __ldcg(row + vector);
      }
    }
  }

  // The products with the rows of dout, whose tile this is.
  __device__ __forceinline__ void Dot(const uint8_t* tile, float (&products)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i;
      float sum = 0.0f;
#pragma unroll
      for (int n = 0; n < kParts; ++n) {
        const int vector = threadIdx.x % 4 + 4 * n;
        if (vector >= kVectors) continue;
        sum += DotBFloat16(vectors[i][n], *reinterpret_cast<const uint4*>(
                                              tile + ptx::HeadTile<kHeadDim>::Offset(row, vector)));
      }
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      products[i] = sum;
    }
  }
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_STATISTICS_CUH_
