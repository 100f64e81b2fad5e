// The register tile of matmul.h, compiled once per instruction set: kTileRows rows x kTilePanels
// vectors of accumulators; the elements of a are broadcast from where they lie, b comes packed.
#include "kernels/base/simd.h"
#include "kernels/gemm/cpu/matmul_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

constexpr int kWidth = kTilePanels * kLanes;

template <int R>
void Tile(const MatMulBlock& block, int64_t row) {
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
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) {
      acc[r][p] = block.accumulate ? Load(c + r * c_stride + p * kLanes) : Zero();
    }
  }
  const float* b = block.b;
  const float* a = block.a + row * block.a_row;
  for (int64_t k = 0; k < block.k; ++k, b += kWidth, a += block.a_column) {
    F columns[kTilePanels];
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) columns[p] = Load(b + p * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F value = Set1(a[r * block.a_row]);
#pragma GCC unroll 4
      for (int p = 0; p < kTilePanels; ++p) acc[r][p] = Fma(value, columns[p], acc[r][p]);
    }
  }
  float bias[kWidth] = {};
  if (block.bias != nullptr) {
    for (int64_t j = 0; j < block.columns; ++j) bias[j] = block.bias[j];
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) {
      const F sum = block.bias != nullptr ? Add(acc[r][p], Load(bias + p * kLanes)) : acc[r][p];
      Store(c + r * c_stride + p * kLanes, sum);
    }
  }
  if (full) return;
  for (int r = 0; r < R; ++r) {
    for (int64_t j = 0; j < block.columns; ++j) {
      block.c[(row + r) * block.c_stride + j] = edge[r][j];
    }
  }
}

void Block(const MatMulBlock& block) {
  int64_t row = 0;
  for (; row + kTileRows <= block.rows; row += kTileRows) Tile<kTileRows>(block, row);
  for (; row < block.rows; ++row) Tile<1>(block, row);
}

void Pack(const MatMulPack& pack) {
  for (int64_t k = 0; k < pack.k; ++k) {
    float* to = pack.panel + k * kWidth;
    const float* from = pack.b + k * pack.b_row;
    if (pack.b_column == 1) {
      for (int64_t j = 0; j < pack.columns; ++j) to[j] = from[j];
    } else {
      for (int64_t j = 0; j < pack.columns; ++j) to[j] = from[j * pack.b_column];
    }
    for (int64_t j = pack.columns; j < kWidth; ++j) to[j] = 0;
  }
}

}  // namespace

extern const MatMulKernels kMatMulKernels = {kWidth, Block, Pack};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
