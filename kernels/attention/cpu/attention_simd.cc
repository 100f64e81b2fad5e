// Flash attention on a paged cache, compiled once per instruction set. Each row keeps a running
// maximum, a running sum and an unnormalised output, and takes one step per KV block of 16 tokens,
// in order. A tile only shares loads of K and V among rows: every row does the same operations that
// it would do alone. A block in the future of a row multiplies its state by exactly 1 and adds
// exact zeros.
#include <math.h>

#include "kernels/attention/cpu/attention_kernels.h"
#include "kernels/base/simd.h"
#include "kernels/base/simd_math.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

static_assert(kKvBlockTokens == kLanes);

struct RowState {
  float max = -INFINITY;
  float sum = 0.0f;
};

// The running results of R rows.
template <int R>
struct TileState {
  RowState rows[R];
  alignas(64) float out[R][kMaxHeadDim] = {};  // unnormalised
};

template <typename T>
const T* BlockOf(const AttentionTile& tile, int64_t block) {
  const char* base = static_cast<const char*>(tile.head_base);
  return reinterpret_cast<const T*>(base + static_cast<size_t>(tile.block_table[block]) *
                                               tile.block_stride_bytes);
}

// scores[b][r] = q_r . K of the 16 tokens of block first + b.
template <typename T, int R, int B>
HANLIN_KERNEL_INLINE void Scores(const AttentionTile& tile, int64_t first, F (&scores)[B][R]) {
  const T* keys[B];
  for (int b = 0; b < B; ++b) {
    keys[b] = BlockOf<T>(tile, first + b);
    for (int r = 0; r < R; ++r) scores[b][r] = Zero();
  }
  for (int d = 0; d < tile.head_dim; ++d) {
    F k[B];
    for (int b = 0; b < B; ++b) k[b] = Load(keys[b] + d * kLanes);
    for (int r = 0; r < R; ++r) {
      const F q = Set1(tile.q[r * tile.q_stride + d]);
      for (int b = 0; b < B; ++b) scores[b][r] = Fma(q, k[b], scores[b][r]);
    }
  }
}

// One softmax step of a row that sees the first `visible` tokens of the block: weights[16], and the
// returned factor for what was summed before.
HANLIN_KERNEL_INLINE float SoftmaxStep(F scores, float scale, int64_t visible, RowState& state,
                                       float* weights) {
  if (visible <= 0) {
    Store(weights, Zero());
    return 1.0f;
  }
  scores = Mul(scores, Set1(scale));
  if (visible < kLanes) {
    scores = Select(FirstLanes(static_cast<int>(visible)), scores, Set1(-INFINITY));
  }
  const float block_max = ReduceMax(scores);
  const float max = block_max > state.max ? block_max : state.max;
  float correction = 1.0f;
  if (max != state.max) {
    float lanes[kLanes];
    Store(lanes, Exp(Set1(state.max - max)));
    correction = lanes[0];
  }
  const F exponentials = Exp(Sub(scores, Set1(max)));
  Store(weights, exponentials);
  state.sum = state.sum * correction + ReduceAdd(exponentials);
  state.max = max;
  return correction;
}

template <typename T, int R>
HANLIN_KERNEL_INLINE void BlockStep(const AttentionTile& tile, int64_t block, const F (&scores)[R],
                                    TileState<R>& state) {
  alignas(64) float weights[R][kLanes];
  float corrections[R];
  const int64_t seen = tile.first_position + 1 - block * kKvBlockTokens;  // by the first row
  for (int r = 0; r < R; ++r) {
    corrections[r] = SoftmaxStep(scores[r], tile.scale, seen + r, state.rows[r], weights[r]);
  }
  // Slots that no row of the tile sees may hold anything and are not read.
  const int64_t last_seen = seen + R - 1;
  const int tokens = last_seen < kLanes ? static_cast<int>(last_seen) : kLanes;
  const int padded_dim = (tile.head_dim + kLanes - 1) / kLanes * kLanes;
  const T* values = BlockOf<T>(tile, block) + tile.head_dim * kLanes;
  for (int d = 0; d < padded_dim; d += kLanes) {
    F acc[R];
    for (int r = 0; r < R; ++r) acc[r] = Mul(Load(state.out[r] + d), Set1(corrections[r]));
    for (int t = 0; t < tokens; ++t) {
      const F v = Load(values + t * padded_dim + d);
      for (int r = 0; r < R; ++r) acc[r] = Fma(Set1(weights[r][t]), v, acc[r]);
    }
    for (int r = 0; r < R; ++r) Store(state.out[r] + d, acc[r]);
  }
}

template <typename Out, int R>
void StoreOutput(const AttentionTile& tile, const TileState<R>& state) {
  for (int r = 0; r < R; ++r) {
    const F inverse = Set1(1.0f / state.rows[r].sum);
    Out* out = static_cast<Out*>(tile.out) + r * tile.out_stride;
    int d = 0;
    for (; d + kLanes <= tile.head_dim; d += kLanes)
      Store(out + d, Mul(Load(state.out[r] + d), inverse));
    if (d < tile.head_dim) {
      StoreFirst(out + d, Mul(Load(state.out[r] + d), inverse), tile.head_dim - d);
    }
  }
}

template <typename T, int R>
void Rows(const AttentionTile& tile) {
  // One row has a single chain of additions per block: several blocks at once keep the units busy.
  constexpr int kBlocks = R == 1 ? 4 : kAttentionBlocks;
  TileState<R> state;
  const int64_t blocks = (tile.first_position + R - 1) / kKvBlockTokens + 1;
  int64_t block = 0;
  for (; block + kBlocks <= blocks; block += kBlocks) {
    F scores[kBlocks][R];
    Scores<T, R, kBlocks>(tile, block, scores);
    for (int b = 0; b < kBlocks; ++b) BlockStep<T, R>(tile, block + b, scores[b], state);
  }
  for (; block < blocks; ++block) {
    F scores[1][R];
    Scores<T, R, 1>(tile, block, scores);
    BlockStep<T, R>(tile, block, scores[0], state);
  }
  if (tile.out_type == ComputeType::kFloat32) {
    StoreOutput<float, R>(tile, state);
  } else {
    StoreOutput<BFloat16, R>(tile, state);
  }
}

template <typename T>
void Run(const AttentionTile& tile) {
  switch (tile.rows) {
    case 8:
      return Rows<T, 8>(tile);
    case 4:
      return Rows<T, 4>(tile);
    case 2:
      return Rows<T, 2>(tile);
    default:
      return Rows<T, 1>(tile);
  }
}

}  // namespace

extern const AttentionKernels kAttentionKernels = {kAttentionRows, Run<float>, Run<BFloat16>};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
