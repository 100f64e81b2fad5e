// The register tile of matmul.h in bf16 on AMX: 32 x 32 elements of c in four tiles, 16 steps (32
// k) at a time. A tile of a is 16 rows x 16 steps as they lie in its packed rows, one of b 16 steps
// x 16 columns as they lie in a panel.
//
// A thread's tiles are configured for a loop over blocks (it takes as long as a tenth of a block)
// and released after it, so that the system has no 8 KiB of them to save when it switches threads.
#include <immintrin.h>

#include "kernels/gemm/cpu/matmul_finish.h"
#include "kernels/gemm/cpu/matmul_kernels.h"
#include "kernels/gemm/cpu/matmul_pack.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

constexpr int kTile = 16;               // rows, steps or columns of a tile
constexpr int kPanelWidth = 2 * kTile;  // of a panel
constexpr int kBlockRows = 2 * kTile;
// A panel and two tiles of rows take 20 KiB each: the L1 cache, where twice as many come from L2
// with every tile.
constexpr int kMostSteps = 160;

struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {kTile, kTile, kTile, kTile, kTile, kTile, kTile, kTile};
};
static_assert(sizeof(TileConfig) == 64);

// In static memory: g++ takes the intrinsic to read the first 8 bytes only, and leaves out stores
// to the rest of a local one.
constexpr TileConfig kConfig;

// c [16 or 32 rows][16 or 32 columns] = a b + what c begins with, in whole tiles. Tiles 0 to 3 hold
// c, 4 and 5 a, 6 and 7 b. Calls `between` after every 16 steps, for what vectors can do meanwhile.
template <bool kTwoRows, bool kTwoColumns, typename Between>
HANLIN_KERNEL_INLINE void Multiply(const MatMulBlock<BFloat16>& block, int64_t row, float* c,
                                   int64_t c_stride, bool accumulate, const float* bias,
                                   Between between) {
  const int64_t c_bytes = c_stride * 4, a_bytes = block.a_row * 2;
  constexpr int64_t kPanelBytes = kPanelWidth * 4;
  float* const c_below = c + kTile * c_stride;
  asm volatile("" ::: "memory");  // the loads below are not known to read memory
  if (accumulate || bias != nullptr) {
    // Every row begins with the same bias.
    const int64_t stride = accumulate ? c_bytes : 0;
    const float* const above = accumulate ? c : bias;
    const float* const below = accumulate ? c_below : bias;
    _tile_loadd(0, above, stride);
    if constexpr (kTwoColumns) _tile_loadd(1, above + kTile, stride);
    if constexpr (kTwoRows) _tile_loadd(2, below, stride);
    if constexpr (kTwoRows && kTwoColumns) _tile_loadd(3, below + kTile, stride);
  } else {
    _tile_zero(0);
    if constexpr (kTwoColumns) _tile_zero(1);
    if constexpr (kTwoRows) _tile_zero(2);
    if constexpr (kTwoRows && kTwoColumns) _tile_zero(3);
  }
  const BFloat16* a = block.a + row * block.a_row;
  const BFloat16* const a_below = a + kTile * block.a_row;
  const BFloat16* b = block.b;
  const int64_t a_end = block.steps * 2;
  for (int64_t k = 0; k < a_end; k += 2 * kTile, b += 2 * kTile * kPanelWidth) {
    _tile_loadd(4, a + k, a_bytes);
    _tile_loadd(6, b, kPanelBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kTwoColumns) {
      _tile_loadd(7, b + 2 * kTile, kPanelBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTwoRows) {
      _tile_loadd(5, a_below + k, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kTwoColumns) _tile_dpbf16ps(3, 5, 7);
    }
    between();
  }
  _tile_stored(0, c, c_bytes);
  if constexpr (kTwoColumns) _tile_stored(1, c + kTile, c_bytes);
  if constexpr (kTwoRows) _tile_stored(2, c_below, c_bytes);
  if constexpr (kTwoRows && kTwoColumns) _tile_stored(3, c_below + kTile, c_bytes);
}

// Fetches the cache lines of kBlockRows rows, a few with each call: they come from afar while
// products run.
class Fetcher {
 public:
  // `first` and `second` in row 0; rows are `stride` bytes apart.
  Fetcher(const void* first, const void* second, int64_t stride)
      : first_(static_cast<const char*>(first)),
        second_(static_cast<const char*>(second)),
        stride_(stride) {}

  HANLIN_LAMBDA_INLINE void Some() {
    for (int i = 0; i < 4 && row_ < kBlockRows; ++i, ++row_) {
      __builtin_prefetch(first_ + row_ * stride_, 1, 3);
      __builtin_prefetch(second_ + row_ * stride_, 1, 3);
    }
  }

 private:
  const char* const first_;
  const char* const second_;
  const int64_t stride_;
  int64_t row_ = 0;
};

// Sums in a copy, rows [row, row + rows) of the block, on their way to c.
struct Pending {
  const float* sums = nullptr;
  int64_t row = 0;
  int64_t rows = 0;

  HANLIN_LAMBDA_INLINE void Some(const MatMulBlock<BFloat16>& block, int64_t most) {
    const int64_t count = rows < most ? rows : most;
    if (count > 0) Finish(block, row, count, sums, kPanelWidth);
    row += count;
    rows -= count;
    sums += count * kPanelWidth;
  }
};

// Rows [row, row + rows) to `copy`, while `pending` goes to c.
template <bool kTwoRows, bool kTwoColumns>
void ToCopy(const MatMulBlock<BFloat16>& block, int64_t row, int64_t rows, float* copy,
            Pending& pending) {
  alignas(64) float bias[kPanelWidth] = {};
  for (int64_t j = 0; j < block.columns && block.bias != nullptr; ++j) bias[j] = block.bias[j];
  if (block.accumulate) {  // into fp32 alone
    const float* const c = static_cast<const float*>(block.c) + row * block.c_stride;
    for (int64_t r = 0; r < kBlockRows; ++r) {
      for (int64_t j = 0; j < kPanelWidth; ++j) {
        const bool exists = r < rows && j < block.columns;
        copy[r * kPanelWidth + j] = exists ? c[r * block.c_stride + j] + bias[j] : 0;
      }
    }
  }
  const int64_t size = block.c_type == ComputeType::kFloat32 ? 4 : 2;
  const int64_t at = row * block.c_stride * size;
  const void* const c = static_cast<const char*>(block.c) + at;
  const bool has_other = block.epilogue != MatMulEpilogue::kNone;
  Fetcher fetcher(c, has_other ? static_cast<const char*>(block.other) + at : c,
                  block.c_stride * size);
  const int64_t loops = block.steps / kTile;
  const int64_t some = loops > 0 ? (kBlockRows + loops - 1) / loops : kBlockRows;
  Multiply<kTwoRows, kTwoColumns>(block, row, copy, kPanelWidth, block.accumulate,
                                  block.bias != nullptr ? bias : nullptr,
                                  [&]() HANLIN_LAMBDA_INLINE {
                                    fetcher.Some();
                                    pending.Some(block, some);
                                  });
  pending.Some(block, kBlockRows);
}

// Where c ends within a tile, has a bias and values to begin with or is not what the sums are, they
// are computed in two copies in turn: one goes to c while the other is computed.
void BlockThroughCopies(const MatMulBlock<BFloat16>& block) {
  alignas(64) float copies[2][kBlockRows * kPanelWidth];
  Pending pending;
  for (int64_t row = 0; row < block.rows; row += kBlockRows) {
    const int64_t rest = block.rows - row, rows = rest < kBlockRows ? rest : kBlockRows;
    float* const copy = copies[row / kBlockRows % 2];
    const bool two_rows = rows > kTile, two_columns = block.columns > kTile;
    const auto to_copy = two_rows ? (two_columns ? ToCopy<true, true> : ToCopy<true, false>)
                                  : (two_columns ? ToCopy<false, true> : ToCopy<false, false>);
    to_copy(block, row, rows, copy, pending);
    pending = {copy, row, rows};
  }
  pending.Some(block, kBlockRows);
}

void Enter() { _tile_loadconfig(&kConfig); }
void Leave() { _tile_release(); }

void Block(const MatMulBlock<BFloat16>& block) {
  const bool in_place = IsPlain(block) && block.columns == kPanelWidth &&
                        block.rows % kBlockRows == 0 &&
                        (block.bias == nullptr || !block.accumulate);
  if (!in_place) {
    BlockThroughCopies(block);
    return;
  }
  for (int64_t row = 0; row < block.rows; row += kBlockRows) {
    float* const c = static_cast<float*>(block.c) + row * block.c_stride;
    Fetcher fetcher(c, c + kTile, block.c_stride * 4);
    Multiply<true, true>(block, row, c, block.c_stride, block.accumulate, block.bias,
                         [&]() HANLIN_LAMBDA_INLINE { fetcher.Some(); });
  }
}

void PackK(const MatMulPack<BFloat16>& pack) { PackPairsOfK(pack); }
void PackLines(const MatMulPack<BFloat16>& pack) { PackPairsOfLines(pack); }
void PackRows(const MatMulPack<BFloat16>& pack) { PackPairsOfRows(pack); }
void Round(const float* from, int64_t k, BFloat16* to) { RoundRow(from, k, to); }

}  // namespace

extern const MatMulKernelsOf<BFloat16> kMatMulKernels = {kPanelWidth, kBlockRows, kMostSteps, kTile,
                                                         Enter,       Leave,      Block,      PackK,
                                                         PackLines,   PackRows,   Round};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
