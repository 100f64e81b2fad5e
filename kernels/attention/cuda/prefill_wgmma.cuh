// Warpgroup products of prefill attention: bf16 with fp32 sums, 64 rows. A tile of 64 positions
// lies in shared memory as panels, whose rows are positions: of 64 elements of the head (128 bytes,
// swizzled over 128), and one of 16 where those remain (32 bytes, swizzled over 32). K is read
// along the head and V along the positions in place, and a row arrives in one piece, which matters
// to the copies: scattered in pieces of 16 bytes they take several times as long. Needs sm_90a.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_PREFILL_WGMMA_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_PREFILL_WGMMA_CUH_

#include <cstdint>

#include "kernels/base/cuda/wgmma.cuh"

namespace hanlin::ptx {

inline constexpr int kTilePositions = 64;
inline constexpr int kPanelBytes = kTilePositions * 128;

template <int kHeadDim>
struct HeadTile {
  static constexpr int kPanels = kHeadDim / 64;
  static constexpr bool kHasTail = kHeadDim % 64 != 0;
  static_assert(kHeadDim % 64 == 0 || kHeadDim % 64 == 16);
  static constexpr int kBytes = kTilePositions * kHeadDim * 2;  // a tile is aligned to 1024

  // Where the 16 bytes `chunk` of a position lie.
  static __device__ __forceinline__ int Offset(int position, int chunk) {
    if (!kHasTail || chunk < kPanels * 8) {
      return chunk / 8 * kPanelBytes + position * 128 + (chunk % 8 ^ position % 8) * 16;
    }
    return kPanels * kPanelBytes + position * 32 + (chunk % 2 ^ position / 4 % 2) * 16;
  }
};

__device__ __forceinline__ uint64_t PanelDescriptor(const void* shared) {
  return TileDescriptor<128>(shared, 1024, kPanelBytes);
}
__device__ __forceinline__ uint64_t TailDescriptor(const void* shared) {
  return TileDescriptor<32>(shared, 256, 256);
}

// s = Q K^T, with kAdds added to what s was, issued in steps of 16 elements of the head.
template <int kHeadDim, bool kAdds = false>
__device__ __forceinline__ void TileScores(const uint8_t* q, const uint8_t* k, float (&s)[32]) {
  using T = HeadTile<kHeadDim>;
#pragma unroll
  for (int panel = 0; panel < T::kPanels; ++panel) {
    const uint64_t q_panel = PanelDescriptor(q + panel * kPanelBytes);
    const uint64_t k_panel = PanelDescriptor(k + panel * kPanelBytes);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      Wgmma<64>::Product(s, q_panel + step * 2, k_panel + step * 2, kAdds || panel + step > 0);
    }
  }
  if constexpr (T::kHasTail) {
    Wgmma<64>::Product(s, TailDescriptor(q + T::kPanels * kPanelBytes),
                       TailDescriptor(k + T::kPanels * kPanelBytes), true);
  }
}

// d (64 rows, of them kColumns columns) += p [64 x 16] v [16 x kColumns], p in registers in the
// layout of scores: {rows i 0, 1 of columns 0 to 7, then of columns 8 to 15}, two columns a word.
// d points to the first of this lane's kColumns / 2 values.
template <int kColumns>
__device__ void ValueProduct(float* d, const uint32_t (&p)[4], uint64_t v);
template <>
__device__ __forceinline__ void ValueProduct<64>(float* d, const uint32_t (&p)[4], uint64_t v) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}
template <>
__device__ __forceinline__ void ValueProduct<16>(float* d, const uint32_t (&p)[4], uint64_t v) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7}, "
      "{%8, %9, %10, %11}, %12, 1, 1, 1, 1;\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7])
      : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}
template <>
__device__ __forceinline__ void ValueProduct<128>(float* d, const uint32_t (&p)[4], uint64_t v) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63])
      : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}

// o [64 x head_dim] += weights [64 x 64] V.
template <int kHeadDim>
__device__ __forceinline__ void TileValues(const uint32_t (&weights)[4][4], const uint8_t* v,
                                           float (&o)[kHeadDim / 2]) {
  using T = HeadTile<kHeadDim>;
  const uint64_t panels = PanelDescriptor(v);
  const uint64_t tail = TailDescriptor(v + T::kPanels * kPanelBytes);
#pragma unroll
  for (int step = 0; step < kTilePositions / 16; ++step) {
    ValueProduct<T::kPanels * 64>(o, weights[step], panels + step * (2048 / 16));
    if constexpr (T::kHasTail)
      ValueProduct<16>(o + T::kPanels * 32, weights[step], tail + step * (512 / 16));
  }
}

}  // namespace hanlin::ptx

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_PREFILL_WGMMA_CUH_
