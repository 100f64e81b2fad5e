// Causal attention for training, forward, bf16 on the tensor cores, with documents, dropout and the
// log of the sum of exponentials. A warpgroup keeps 64 queries and meets the tiles of keys from the
// diagonal back to the first; the scores of a tile are computed while the tile before it is added
// to the result. One thread copies, far ahead.
#include <cmath>

#include "kernels/attention/cuda/causal_forward_tiles.cuh"
#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/attention/cuda/tile_softmax.cuh"
#include "kernels/base/cuda/launch.cuh"

namespace hanlin {
namespace {

// Warpgroups that compute, keys of a tile and pairs in the ring: as registers and shared memory
// allow.
template <int kHeadDim>
struct Plan {
  static constexpr int kGroups = kHeadDim == 128 ? 2 : 3;
  static constexpr int kKeys = kHeadDim == 80 ? 64 : 128;
  static constexpr int kStages = kHeadDim == 64 ? 4 : kHeadDim == 80 ? 6 : 2;
  static constexpr int kRows = kGroups * 64;
  static constexpr int kThreads = (kGroups + 1) * 128;
  static constexpr int kComputeRegisters = kGroups == 3 ? 160 : 240;
  static constexpr int kCopyRegisters = kGroups == 3 ? 32 : 24;
  using Space = ForwardSpace<kHeadDim, kGroups, kKeys, kStages>;
  using Ring = ForwardRing<Space, kGroups>;
};

// Below any score, and finite: in a tile that is hidden from a query nothing minus nothing is 0.
constexpr float kLowest = -1e30f;
// Powers of 2 by which a score may exceed the maximum that weights are relative to. Until one does
// neither sums nor results are moved.
constexpr float kSlack = 8.0f;

// Turns scores into weights, adds them up, and says whether o is to be multiplied by `factor`,
// which the lanes of a warp do together. A row's 4 lanes agree on its maximum.
template <int kValues>
__device__ __forceinline__ bool Weigh(float scale, SoftmaxState& state, float (&s)[kValues],
                                      float (&factor)[2]) {
  float maximum[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    maximum[i] = s[2 * i];
#pragma unroll
    for (int j = 0; j < kValues / 4; ++j) {
      maximum[i] = fmaxf(maximum[i], fmaxf(s[4 * j + 2 * i], s[4 * j + 2 * i + 1]));
    }
    maximum[i] = fmaxf(maximum[i], __shfl_xor_sync(0xffffffffu, maximum[i], 1));
    maximum[i] = fmaxf(maximum[i], __shfl_xor_sync(0xffffffffu, maximum[i], 2));
  }
  const bool grows = (maximum[0] - state.maximum[0]) * scale > kSlack ||
                     (maximum[1] - state.maximum[1]) * scale > kSlack;
  const bool moves = __any_sync(0xffffffffu, grows);
  if (moves) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      maximum[i] = fmaxf(maximum[i], state.maximum[i]);
      factor[i] = ptx::Exp2((state.maximum[i] - maximum[i]) * scale);
      state.maximum[i] = maximum[i];
      state.sum[i] *= factor[i];
    }
  }
  const float offset[2] = {state.maximum[0] * scale, state.maximum[1] * scale};
#pragma unroll
  for (int j = 0; j < kValues; ++j) {
    s[j] = ptx::Exp2(fmaf(s[j], scale, -offset[j / 2 % 2]));
    state.sum[j / 2 % 2] += s[j];
  }
  return moves;
}

// One warpgroup and its 64 queries from `first` on.
template <int kHeadDim, bool kDropout>
struct Attend {
  using P = Plan<kHeadDim>;
  using Pair = typename P::Ring::Pair;
  static constexpr int kKeys = P::kKeys;
  uint32_t q, pairs;  // RowTile::Low of the queries and of the ring's first tile
  typename P::Ring& ring;
  const DropoutLaw& law;
  const int32_t* begins;  // documents of the sequence, or null
  int length;
  int first;
  int last_begin;  // of the document of the last query: tiles from there on hide nothing but the
                   // diagonal
  float scale;     // to powers of 2
  uint32_t dropout_row, dropout_column;

  __device__ __forceinline__ uint32_t Wait(const Pair& pair) const {
    ring.WaitFull(pair);
    return pairs + pair.at * (2 * P::Space::kTileBytes / 16);
  }
  // Made anew where it is needed, which is rare: it would take registers all the time.
  template <int kValues>
  __device__ __forceinline__ void Hide(int key, float (&s)[kValues]) const {
    HideKeys(QueryPair(first, length, begins), key, -INFINITY, s);
  }
  // As the left operand of the next product, without what dropout takes; zeros for keys beyond.
  template <int kValues>
  __device__ __forceinline__ void Pack(const float (&s)[kValues], int key,
                                       uint32_t (&weights)[kKeys / 16][4]) const {
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) {
      weights[i / 4][i % 4] = i < kValues / 2 ? PackBFloat16(s[2 * i], s[2 * i + 1]) : 0;
    }
    if constexpr (kDropout) {
#pragma unroll
      for (int i = 0; i < kValues / 8; ++i) {  // 4 decisions about 64 keys, and so on
        const int column = key + i / 4 * 64 + i / 2 % 2 * 8 + threadIdx.x % 4 * 2;
        uint32_t decisions[4];
        DropoutDecisions(law, dropout_row + i % 2 * 8, dropout_column + column, decisions);
#pragma unroll
        for (int w = 0; w < 4; ++w) weights[i / 4 * 4 + w][i % 4] &= KeptHalves(decisions[w]);
      }
    }
  }

  // The tile on the diagonal, or its first half, which is all that the queries see.
  template <int kSeen>
  __device__ __forceinline__ void Begin(uint32_t pair, int key, SoftmaxState& state,
                                        uint32_t (&weights)[kKeys / 16][4]) const {
    float s[kSeen / 2], factor[2];
    ptx::WgmmaFence();
    KeyScores<kHeadDim, kSeen, kKeys>(q, pair, s);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    ptx::WgmmaResults(s);
    Hide(key, s);
    Weigh(scale, state, s, factor);
    Pack(s, key, weights);
  }

  // All tiles, of which `at` is the first in the ring; then it is behind them.
  __device__ __forceinline__ void Run(int tiles, Pair& at, float (&o)[kHeadDim / 2],
                                      SoftmaxState& state) const {
    constexpr int kValues = P::Space::kTileBytes / 16;  // from K to V
    uint32_t weights[kKeys / 16][4];
    uint32_t pair = Wait(at);
    int key = first / kKeys * kKeys;
    if (kKeys == 64 || first != key) {
      Begin<kKeys>(pair, key, state, weights);
    } else {
      Begin<64>(pair, key, state, weights);
    }
#pragma unroll 1
    for (; tiles > 1; --tiles) {
      key -= kKeys;
      const uint32_t before = pair;
      Pair next = at;
      next.Next();
      pair = Wait(next);
      float s[kKeys / 2], factor[2];
      ptx::WgmmaFence();
      KeyScores<kHeadDim, kKeys, kKeys>(q, pair, s);
      ptx::WgmmaCommit();
      AddValues<kHeadDim, kKeys>(weights, before + kValues, o);
      ptx::WgmmaCommit();
      ptx::WgmmaWait<1>();
      ptx::WgmmaResults(s);
      if (key < last_begin) Hide(key, s);
      const bool moves = Weigh(scale, state, s, factor);
      ptx::WgmmaWait<0>();
      ptx::WgmmaResults(o);
      ring.Free(at);
      at = next;
      if (moves) {
#pragma unroll
        for (int j = 0; j < kHeadDim / 2; ++j) o[j] *= factor[j / 2 % 2];
      }
      Pack(s, key, weights);
    }
    ptx::WgmmaFence();
    AddValues<kHeadDim, kKeys>(weights, pair + kValues, o);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    ptx::WgmmaResults(o);
    ring.Free(at);
    at.Next();
  }
};

// Divides by the sums and stores.
template <int kHeadDim>
__device__ __forceinline__ void Finish(const CudaCausalAttentionParams& p,
                                       const float (&o)[kHeadDim / 2], const SoftmaxState& state,
                                       float dropout_scale, int sequence, int head, int first,
                                       uint32_t* out) {
  const int rows = static_cast<int>(p.length) - first;
  float* const log_sum = p.log_sum + (sequence * p.heads + head) * p.length + first;
  float factor[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float sum = state.sum[i];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    factor[i] = dropout_scale / sum;
    const int row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i;
    if (threadIdx.x % 4 == 0 && row < rows) {
      log_sum[row] = state.maximum[i] * p.scale + logf(sum);
    }
  }
  const int64_t row_words = p.heads * (kHeadDim / 2);
  StoreTile<kHeadDim>(o, factor[0], factor[1], rows, row_words,
                      out + (sequence * p.length + first) * row_words + head * (kHeadDim / 2));
}

// What a block of queries meets, tiles of keys from the last to the first, and its documents.
template <int kHeadDim>
struct Tiles {
  int idle;               // warpgroups before the sequence
  const int32_t* begins;  // documents of the sequence, or null
  int first, last;

  __device__ __forceinline__ Tiles(const CudaCausalAttentionParams& p, const Schedule& work)
      : idle(max(-work.first, 0) / 64),
        begins(p.document_begin == nullptr ? nullptr : p.document_begin + work.sequence * p.length),
        first(begins == nullptr ? 0 : __ldcg(begins + max(work.first, 0)) / Plan<kHeadDim>::kKeys),
        last((work.first + Plan<kHeadDim>::kRows - 1) / Plan<kHeadDim>::kKeys) {}
};

// By one thread.
template <int kHeadDim>
__device__ __forceinline__ void CopyAll(const CudaCausalAttentionParams& p, const CausalWork& shape,
                                        const CausalAttentionMaps& maps,
                                        const typename Plan<kHeadDim>::Space& space,
                                        typename Plan<kHeadDim>::Ring& ring) {
  using P = Plan<kHeadDim>;
  const int width = static_cast<int>(p.heads) * kHeadDim;
  typename P::Ring::Pair pair;
  typename P::Ring::Own own;
  for (Schedule work(shape); work.Next(); own.Next()) {
    const Tiles<kHeadDim> tiles(p, work);
    const int column = work.head * kHeadDim;
    ring.WaitOwnFree(own);
    for (int tile = tiles.last; tile >= tiles.first; --tile, pair.Next()) {
      ring.WaitFree(pair);
      uint8_t* const to = space.Pair(pair.at);
      uint64_t* const full = &ring.full[pair.at];
      const int groups = tile == tiles.last ? P::kGroups - tiles.idle : 0;  // whose queries come
      ptx::ArriveExpect(full, 2 * P::Space::kTileBytes + groups * P::Space::kOwnBytes);
      for (int g = P::kGroups - groups; g < P::kGroups; ++g) {
        CopyRows<kHeadDim, 64>(maps, column, work.first + g * 64, work.sequence,
                               space.Own(own.at, g), full);
      }
      CopyRows<kHeadDim, P::kKeys>(maps, column + width, tile * P::kKeys, work.sequence, to, full);
      CopyRows<kHeadDim, P::kKeys>(maps, column + 2 * width, tile * P::kKeys, work.sequence,
                                   to + P::Space::kTileBytes, full);
    }
  }
}

template <int kHeadDim, bool kDropout>
__global__ void __launch_bounds__(Plan<kHeadDim>::kThreads, 1)
    ForwardKernel(const __grid_constant__ CudaCausalAttentionParams p,
                  const __grid_constant__ DropoutLaw law, const __grid_constant__ CausalWork shape,
                  const __grid_constant__ CausalAttentionMaps maps, uint32_t* out) {
  using P = Plan<kHeadDim>;
  constexpr int kKeys = P::kKeys;
  extern __shared__ uint8_t unaligned[];
  const typename P::Space space(unaligned);
  __shared__ typename P::Ring ring;
  if (threadIdx.x == 0) ring.Init();
  __syncthreads();
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int length = static_cast<int>(p.length), group = ptx::Uniform(threadIdx.x / 128);
  if (group == P::kGroups) {
    ptx::GiveRegisters<P::kCopyRegisters>();
    if (threadIdx.x % 128 == 0) CopyAll<kHeadDim>(p, shape, maps, space, ring);
    return;
  }
  ptx::TakeRegisters<P::kComputeRegisters>();
  typename P::Ring::Pair pair;
  typename P::Ring::Own own;
  for (Schedule work(shape); work.Next(); own.Next()) {
    const Tiles<kHeadDim> tiles(p, work);
    const int first_tile = ptx::Uniform(tiles.first);
    if (group < tiles.idle) {
      ring.Skip(&pair, tiles.last + 1 - first_tile);
      ring.FreeOwn(own);
      continue;
    }
    const int first = work.first + group * 64;
    ring.Skip(&pair, tiles.last - first / kKeys);
    const int row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    const Attend<kHeadDim, kDropout> attend = {
        .q = RowTile<kHeadDim, 64>::Low(space.Own(own.at, group)),
        .pairs = RowTile<kHeadDim, kKeys>::Low(space.Pair(0)),
        .ring = ring,
        .law = law,
        .begins = tiles.begins,
        .length = length,
        .first = first,
        .last_begin = tiles.begins == nullptr
                          ? 0
                          : ptx::Uniform(__ldcg(tiles.begins + min(first + 63, length - 1))),
        .scale = p.scale * 1.44269504f,
        .dropout_row =
            p.dropout.first_row + static_cast<uint32_t>(work.sequence * p.length) + first + row,
        .dropout_column = (p.first_head + work.head) * kHeadColumns};
    float o[kHeadDim / 2] = {};
    SoftmaxState state = {{kLowest, kLowest}, {}};
    attend.Run(first / kKeys + 1 - first_tile, pair, o, state);
    ring.FreeOwn(own);
    Finish<kHeadDim>(p, o, state, kDropout ? law.scale : 1.0f, work.sequence, work.head, first,
                     out);
  }
}

template <int kHeadDim, bool kDropout>
cudaError_t Launch(const CudaCausalAttentionParams& p, const CausalAttentionMaps& maps, void* out,
                   cudaStream_t stream) {
  using P = Plan<kHeadDim>;
  CausalWork work;
  int blocks = 0;
  const cudaError_t error = PlanWork(p, P::kRows, true, &work, &blocks);
  if (error != cudaSuccess) return error;
  return LaunchDependent(
      ForwardKernel<kHeadDim, kDropout>,
      {.grid = dim3(blocks), .block = dim3(P::kThreads), .shared_bytes = P::Space::kBytes}, stream,
      p, MakeDropoutLaw(p.dropout), work, maps, static_cast<uint32_t*>(out));
}

template <int kHeadDim>
cudaError_t Launch(const CudaCausalAttentionParams& p, const CausalAttentionMaps& maps, void* out,
                   cudaStream_t stream) {
  return p.dropout.rate > 0 ? Launch<kHeadDim, true>(p, maps, out, stream)
                            : Launch<kHeadDim, false>(p, maps, out, stream);
}

}  // namespace

cudaError_t LaunchCausalAttention(const CudaCausalAttentionParams& params,
                                  const CausalAttentionMaps& maps, void* out, cudaStream_t stream) {
  switch (params.head_dim) {
    case 64:
      return Launch<64>(params, maps, out, stream);
    case 80:
      return Launch<80>(params, maps, out, stream);
    case 128:
      return Launch<128>(params, maps, out, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
