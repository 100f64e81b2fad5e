// From a tile's sums to c, where c is bf16 or an epilogue follows, for the kernels of
// matmul_simd.cc and matmul_amx.cc. To be included by files that are compiled once per instruction
// set (see simd.h).
#ifndef HANLIN_KERNELS_GEMM_CPU_MATMUL_FINISH_H_
#define HANLIN_KERNELS_GEMM_CPU_MATMUL_FINISH_H_

#include "kernels/base/simd.h"
#include "kernels/base/simd_math.h"
#include "kernels/gemm/cpu/matmul_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {

template <typename C>
HANLIN_KERNEL_INLINE F LoadLanes(const C* p, int lanes) {
  return lanes == kLanes ? Load(p) : LoadFirst(p, lanes);
}
template <typename C>
HANLIN_KERNEL_INLINE void StoreLanes(C* p, F v, int lanes) {
  if (lanes == kLanes) {
    Store(p, v);
  } else {
    StoreFirst(p, v, lanes);
  }
}

// Stores v; returns what c holds now, v as rounded.
HANLIN_KERNEL_INLINE F StoreC(float* c, F v, int lanes) {
  StoreLanes(c, v, lanes);
  return v;
}
HANLIN_KERNEL_INLINE F StoreC(BFloat16* c, F v, int lanes) {
  StoreLanes(c, v, lanes);
  return LoadLanes(c, lanes);
}

template <MatMulEpilogue kEpilogue, typename C>
HANLIN_KERNEL_INLINE void FinishLanes(F v, C* c, C* other, int lanes) {
  using E = MatMulEpilogue;
  if constexpr (kEpilogue == E::kGeluTanhBackward) {
    v = Mul(v, GeluTanhDerivative(LoadLanes(other, lanes)));
  } else if constexpr (kEpilogue == E::kGeluErfBackward) {
    v = Mul(v, GeluErfDerivative(LoadLanes(other, lanes)));
  }
  const F stored = StoreC(c, v, lanes);
  if constexpr (kEpilogue == E::kGeluTanh) {
    StoreLanes(other, GeluTanh(stored), lanes);
  } else if constexpr (kEpilogue == E::kGeluErf) {
    StoreLanes(other, GeluErf(stored), lanes);
  }
}

template <MatMulEpilogue kEpilogue, typename C, typename T>
void FinishRows(const MatMulBlock<T>& block, int64_t row, int64_t rows, const float* sums,
                int64_t sums_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = (row + r) * block.c_stride;
    C* const c = static_cast<C*>(block.c) + at;
    C* const other = static_cast<C*>(block.other) + at;
    const float* const from = sums + r * sums_stride;
    int64_t j = 0;
    for (; j + kLanes <= block.columns; j += kLanes) {
      FinishLanes<kEpilogue>(Load(from + j), c + j, other + j, kLanes);
    }
    if (j < block.columns) {
      const int rest = static_cast<int>(block.columns - j);
      FinishLanes<kEpilogue>(LoadFirst(from + j, rest), c + j, other + j, rest);
    }
  }
}

template <typename C, typename T>
HANLIN_KERNEL_INLINE void FinishAs(const MatMulBlock<T>& block, int64_t row, int64_t rows,
                                   const float* sums, int64_t sums_stride) {
  using E = MatMulEpilogue;
  switch (block.epilogue) {
    case E::kNone:
      return FinishRows<E::kNone, C>(block, row, rows, sums, sums_stride);
    case E::kGeluTanh:
      return FinishRows<E::kGeluTanh, C>(block, row, rows, sums, sums_stride);
    case E::kGeluErf:
      return FinishRows<E::kGeluErf, C>(block, row, rows, sums, sums_stride);
    case E::kGeluTanhBackward:
      return FinishRows<E::kGeluTanhBackward, C>(block, row, rows, sums, sums_stride);
    case E::kGeluErfBackward:
      return FinishRows<E::kGeluErfBackward, C>(block, row, rows, sums, sums_stride);
  }
}

// The tile computes in c itself.
template <typename T>
HANLIN_KERNEL_INLINE bool IsPlain(const MatMulBlock<T>& block) {
  return block.epilogue == MatMulEpilogue::kNone && block.c_type == ComputeType::kFloat32;
}

// Rows [row, row + rows) of the block from sums [rows][columns], sums_stride apart.
template <typename T>
HANLIN_KERNEL_INLINE void Finish(const MatMulBlock<T>& block, int64_t row, int64_t rows,
                                 const float* sums, int64_t sums_stride) {
  if (block.c_type == ComputeType::kFloat32) {
    FinishAs<float>(block, row, rows, sums, sums_stride);
  } else {
    FinishAs<BFloat16>(block, row, rows, sums, sums_stride);
  }
}

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE

#endif  // HANLIN_KERNELS_GEMM_CPU_MATMUL_FINISH_H_
