// The register tile of matmul.h, compiled once per instruction set: kTileRows rows x kTilePanels
// vectors of accumulators; the elements of a are broadcast from where they lie, b comes packed.
#include "kernels/gemm/cpu/matmul_kernels.h"
#include "kernels/gemm/cpu/matmul_pack.h"
#include "kernels/gemm/cpu/step.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

constexpr int kWidth = kTilePanels * kLanes;

template <typename T, int R>
void Tile(const MatMulBlock<T>& block, int64_t row) {
  using S = Step<T>;
  F acc[R][kTilePanels];
  // A full panel is read and written in place; the last one through a copy.
  float edge[R][kWidth] = {};
  const bool full = block.columns == kWidth;
  float* const c = full ? block.c + row * block.c_stride : edge[0];
  const int64_t c_stride = full ? block.c_stride : kWidth;
  if (!full && block.accumulate) {
    for (int r = 0; r < R; ++r) {
      for (int64_t j = 0; j < block.columns; ++j) {
        edge[r][j] = block.c[(row + r) * block.c_stride + j];
      }
    }
  }
  F bias[kTilePanels];
#pragma GCC unroll 4
  for (int p = 0; p < kTilePanels; ++p) {
    bias[p] = block.bias != nullptr ? LoadUpTo(block.bias + p * kLanes, block.columns - p * kLanes)
                                    : Zero();
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) {
      acc[r][p] = block.accumulate ? Add(Load(c + r * c_stride + p * kLanes), bias[p]) : bias[p];
    }
  }
  const T* b = block.b;
  const T* a = block.a + row * block.a_row;
  for (int64_t k = 0; k < block.steps; ++k, b += kWidth * S::kK, a += block.a_step) {
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
  if (full) return;
  for (int r = 0; r < R; ++r) {
    for (int64_t j = 0; j < block.columns; ++j) {
      block.c[(row + r) * block.c_stride + j] = edge[r][j];
    }
  }
}

template <typename T>
void Block(const MatMulBlock<T>& block) {
  int64_t row = 0;
  for (; row + kTileRows <= block.rows; row += kTileRows) Tile<T, kTileRows>(block, row);
  for (; row < block.rows; ++row) Tile<T, 1>(block, row);
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

void Round(const float* from, int64_t k, BFloat16* to) { RoundRow(from, k, to); }

}  // namespace

extern const MatMulKernels kMatMulKernels = {
    {kWidth, kTileRows, 1, nullptr, nullptr, Block<float>, PackK, PackLines, nullptr, nullptr},
    {kWidth, kTileRows, 1, nullptr, nullptr, Block<BFloat16>, PackK, PackLines, nullptr, Round}};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
