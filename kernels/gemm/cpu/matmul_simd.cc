// The register tile of matmul.h, compiled once per instruction set: kTileRows rows x kTilePanels
// vectors of accumulators; the elements of a are broadcast from where they lie, b comes packed.
#include "kernels/gemm/cpu/matmul_finish.h"
#include "kernels/gemm/cpu/matmul_kernels.h"
#include "kernels/gemm/cpu/matmul_pack.h"
#include "kernels/gemm/cpu/step.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

constexpr int kWidth = kTilePanels * kLanes;
constexpr int kMostSteps = 320;  // a panel of 80 KiB, read from the L2 cache

// Rows [row, row + R) of the block to c, which holds what they begin with if `accumulate`. Reads
// and writes whole panels.
template <typename T, int R>
HANLIN_KERNEL_INLINE void Multiply(const MatMulBlock<T>& block, int64_t row, float* c,
                                   int64_t c_stride) {
  using S = Step<T>;
  F bias[kTilePanels];
#pragma GCC unroll 4
  for (int p = 0; p < kTilePanels; ++p) {
    bias[p] = block.bias != nullptr ? LoadUpTo(block.bias + p * kLanes, block.columns - p * kLanes)
                                    : Zero();
  }
  F acc[R][kTilePanels];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) {
      acc[r][p] = block.accumulate ? Add(Load(c + r * c_stride + p * kLanes), bias[p]) : bias[p];
    }
  }
  const T* b = block.b;
  const T* a = block.a + row * block.a_row;
  for (int64_t k = 0; k < block.steps; ++k, b += kWidth * S::kK, a += S::kK) {
    typename S::Operand columns[kTilePanels];
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) columns[p] = S::Weights(b + p * kLanes * S::kK);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename S::Operand value = S::Broadcast(a + r * block.a_row);
#pragma GCC unroll 4
      for (int p = 0; p < kTilePanels; ++p) acc[r][p] = S::Dot(columns[p], value, acc[r][p]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) Store(c + r * c_stride + p * kLanes, acc[r][p]);
  }
}

// A panel that c ends within, or that does not become c as it is, is computed in `copy`.
template <typename T, int R>
void ThroughCopy(const MatMulBlock<T>& block, int64_t row) {
  float copy[R][kWidth];
  if (block.accumulate) {  // into fp32 alone
    const float* const c = static_cast<const float*>(block.c) + row * block.c_stride;
    for (int r = 0; r < R; ++r) {
      for (int64_t j = 0; j < kWidth; ++j) {
        copy[r][j] = j < block.columns ? c[r * block.c_stride + j] : 0;
      }
    }
  }
  Multiply<T, R>(block, row, copy[0], kWidth);
  Finish(block, row, R, copy[0], kWidth);
}

template <typename T, int R>
HANLIN_KERNEL_INLINE void Tile(const MatMulBlock<T>& block, int64_t row, bool in_place) {
  if (in_place) {
    Multiply<T, R>(block, row, static_cast<float*>(block.c) + row * block.c_stride, block.c_stride);
  } else {
    ThroughCopy<T, R>(block, row);
  }
}

template <typename T>
void Block(const MatMulBlock<T>& block) {
  const bool in_place = IsPlain(block) && block.columns == kWidth;
  int64_t row = 0;
  for (; row + kTileRows <= block.rows; row += kTileRows) Tile<T, kTileRows>(block, row, in_place);
  for (; row < block.rows; ++row) Tile<T, 1>(block, row, in_place);
}

void PackK(const MatMulPack<float>& pack) {
  const auto* const from = static_cast<const float*>(pack.from);
  for (int64_t k = 0; k < pack.k; ++k) {
    for (int64_t j = 0; j < pack.width; j += kLanes) {
      Store(pack.panel + k * pack.width + j, LoadUpTo(from + k * pack.stride + j, pack.lines - j));
    }
  }
}
void PackK(const MatMulPack<BFloat16>& pack) { PackPairsOfK(pack); }

void PackLines(const MatMulPack<float>& pack) {
  const auto* const from = static_cast<const float*>(pack.from);
  for (int64_t line = 0; line < pack.width; line += kLanes) {
    for (int64_t k = 0; k < pack.k; k += kLanes) {
      I values[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int64_t count = line + i < pack.lines ? pack.k - k : 0;
        values[i] = BitsToI(LoadUpTo(from + (line + i) * pack.stride + k, count));
      }
      Transpose(values);
      for (int i = 0; i < kLanes && k + i < pack.k; ++i) {
        Store(pack.panel + (k + i) * pack.width + line, BitsToF(values[i]));
      }
    }
  }
}
void PackLines(const MatMulPack<BFloat16>& pack) { PackPairsOfLines(pack); }

void PackRows(const MatMulPack<float>& pack) {
  const auto* const from = static_cast<const float*>(pack.from);
  for (int64_t k = 0; k < pack.k; k += kLanes) {
    for (int64_t line = 0; line < pack.lines; line += kLanes) {
      I values[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int64_t count = k + i < pack.k ? pack.lines - line : 0;
        values[i] = BitsToI(LoadUpTo(from + (k + i) * pack.stride + line, count));
      }
      if (pack.sums != nullptr) {
        F sum = Load(pack.sums + line);
        for (int i = 0; i < kLanes; ++i) sum = Add(sum, BitsToF(values[i]));
        Store(pack.sums + line, sum);
      }
      Transpose(values);
      for (int i = 0; i < kLanes; ++i) {
        Store(pack.panel + (line + i) * pack.width + k, BitsToF(values[i]));
      }
    }
  }
}
void PackRows(const MatMulPack<BFloat16>& pack) { PackPairsOfRows(pack); }

void Round(const float* from, int64_t k, BFloat16* to) { RoundRow(from, k, to); }

}  // namespace

extern const MatMulKernels kMatMulKernels = {{kWidth, kTileRows, kMostSteps, 1, nullptr, nullptr,
                                              Block<float>, PackK, PackLines, PackRows, nullptr},
                                             {kWidth, kTileRows, kMostSteps, 1, nullptr, nullptr,
                                              Block<BFloat16>, PackK, PackLines, PackRows, Round}};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
