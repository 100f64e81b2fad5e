// The register tile of matmul.h, compiled once per instruction set: kTileRows rows x kTilePanels
// vectors of accumulators; the elements of a are broadcast from where they lie, b comes packed.
#include "kernels/gemm/cpu/matmul_kernels.h"
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
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) {
      acc[r][p] = block.accumulate ? Load(c + r * c_stride + p * kLanes) : Zero();
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

template <typename T>
void Block(const MatMulBlock<T>& block) {
  int64_t row = 0;
  for (; row + kTileRows <= block.rows; row += kTileRows) Tile<T, kTileRows>(block, row);
  for (; row < block.rows; ++row) Tile<T, 1>(block, row);
}

HANLIN_KERNEL_INLINE F LoadUpTo(const float* p, int64_t count) {
  return count >= kLanes ? Load(p) : count > 0 ? LoadFirst(p, static_cast<int>(count)) : Zero();
}

void PackK(const MatMulPack<float>& pack) {
  for (int64_t k = 0; k < pack.k; ++k) {
    for (int64_t j = 0; j < pack.width; j += kLanes) {
      Store(pack.panel + k * pack.width + j,
            LoadUpTo(pack.from + k * pack.stride + j, pack.lines - j));
    }
  }
}
void PackK(const MatMulPack<BFloat16>& pack) {
  auto* to = reinterpret_cast<uint32_t*>(pack.panel);
  for (int64_t k = 0; k < pack.k; k += 2, to += pack.width) {
    const float* const even = pack.from + k * pack.stride;
    const float* const odd = even + pack.stride;
    for (int64_t j = 0; j < pack.width; j += kLanes) {
      const int64_t lines = pack.lines - j;
      StoreI(to + j,
             ZipPairs(LoadUpTo(even + j, lines), LoadUpTo(odd + j, k + 1 < pack.k ? lines : 0)));
    }
  }
}

void PackLines(const MatMulPack<float>& pack) {
  for (int64_t j = 0; j < pack.lines; ++j) {
    const float* const from = pack.from + j * pack.stride;
    for (int64_t k = 0; k < pack.k; ++k) pack.panel[k * pack.width + j] = from[k];
  }
  for (int64_t k = 0; k < pack.k && pack.lines < pack.width; ++k) {
    for (int64_t j = pack.lines; j < pack.width; ++j) pack.panel[k * pack.width + j] = 0;
  }
}
void PackLines(const MatMulPack<BFloat16>& pack) {
  auto* const to = reinterpret_cast<uint32_t*>(pack.panel);
  for (int64_t j = 0; j < pack.width; ++j) {
    const float* const from = pack.from + j * pack.stride;
    for (int64_t k = 0; k < pack.k; k += 2 * kLanes) {
      const int64_t valid = j < pack.lines ? pack.k - k : 0;
      uint32_t pairs[kLanes];
      StoreI(pairs,
             JoinPairs(LoadUpTo(from + k, valid), LoadUpTo(from + k + kLanes, valid - kLanes)));
      const int64_t steps = (pack.k - k + 1) / 2;
      for (int64_t s = 0; s < kLanes && s < steps; ++s) to[(k / 2 + s) * pack.width + j] = pairs[s];
    }
  }
}

void Round(const float* from, int64_t k, BFloat16* to) {
  for (int64_t i = 0; i < k; i += 2 * kLanes) {
    StoreI(reinterpret_cast<uint32_t*>(to + i),
           JoinPairs(LoadUpTo(from + i, k - i), LoadUpTo(from + i + kLanes, k - i - kLanes)));
  }
}

}  // namespace

extern const MatMulKernels kMatMulKernels = {kWidth,
                                             kTileRows,
                                             {Block<float>, PackK, PackLines},
                                             {Block<BFloat16>, PackK, PackLines},
                                             Round};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
