// Causal attention for training, forward, bf16 on the tensor cores: prefill.cu's scheme over whole
// sequences, with documents, dropout and the log of the sum of exponentials. A warpgroup keeps 64
// queries; the scores of a tile of keys are computed while the tile before it is added to the
// result.
#include <cmath>
#include <type_traits>

#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/attention/cuda/tile_softmax.cuh"
#include "kernels/base/cuda/launch.cuh"

namespace hanlin {
namespace {

// Three warpgroups where they have registers enough.
template <int kHeadDim>
using GroupsOf = std::conditional_t<kHeadDim == 128, Groups<2, 224>, Groups<3, 152>>;
template <int kHeadDim>
using SpaceOf = TileSpace<kHeadDim, GroupsOf<kHeadDim>, 1>;
template <int kHeadDim>
using RingOf = TileRing<SpaceOf<kHeadDim>, GroupsOf<kHeadDim>>;

// Below any score, and finite: in a tile that is hidden from a query nothing minus nothing is 0.
constexpr float kLowest = -1e30f;

// One warpgroup: the tiles of keys that its 64 queries from `first` on see, which are the thread
// block's pairs from `base` on.
template <int kHeadDim, bool kDropout>
struct Attend {
  using Space = SpaceOf<kHeadDim>;
  static constexpr int kTileBytes = Space::kTileBytes;
  const uint8_t* q;
  const Space& space;
  RingOf<kHeadDim>& ring;
  const DropoutLaw& law;
  QueryPair queries;
  int first, first_tile, base;
  float scale;  // to powers of 2
  uint32_t dropout_row, dropout_column;

  __device__ __forceinline__ const uint8_t* Wait(int index) const {
    ring.WaitFull(base + index);
    return space.Pair(base + index);
  }
  __device__ __forceinline__ void Decide(int index, uint32_t (&decisions)[4][4]) const {
    if constexpr (kDropout) {
      DecideOnQueryRows(law, dropout_row, dropout_column + (first_tile + index) * 64, decisions);
    }
  }
  // Scores to weights.
  __device__ __forceinline__ void Weigh(int index, SoftmaxState& state, float (&s)[32],
                                        float (&factor)[2]) const {
    const int key = (first_tile + index) * 64;
    if (queries.Hides(key, first)) HideKeys(queries, key, -INFINITY, s);
    Softmax(s, scale, state, factor);
  }
  __device__ __forceinline__ static void Pack(const float (&s)[32],
                                              const uint32_t (&decisions)[4][4],
                                              uint32_t (&weights)[4][4]) {
    PackWeights(s, weights);
    if constexpr (kDropout) Drop(decisions, weights);
  }

  __device__ __forceinline__ void Run(float (&o)[kHeadDim / 2], SoftmaxState& state) const {
    const int tiles = first / 64 + 1 - first_tile;
    uint32_t weights[4][4], decisions[4][4];
    float factor[2];
    const uint8_t* stage = Wait(0);
    {
      float s[32];
      ptx::WgmmaFence();
      ptx::TileScores<kHeadDim>(q, stage, s);
      ptx::WgmmaCommit();
      Decide(0, decisions);
      ptx::WgmmaWait<0>();
      ptx::WgmmaResults(s);
      Weigh(0, state, s, factor);
      Pack(s, decisions, weights);
    }
    for (int index = 1; index < tiles; ++index) {
      const uint8_t* const before = stage;
      stage = Wait(index);
      float s[32];
      ptx::WgmmaFence();
      ptx::TileScores<kHeadDim>(q, stage, s);
      ptx::WgmmaCommit();
      ptx::TileValues<kHeadDim>(weights, before + kTileBytes, o);
      ptx::WgmmaCommit();
      Decide(index, decisions);
      ptx::WgmmaWait<1>();
      ptx::WgmmaResults(s);
      Weigh(index, state, s, factor);
      ptx::WgmmaWait<0>();
      ptx::WgmmaResults(o);
      ring.Free(base + index - 1);
#pragma unroll
      for (int j = 0; j < kHeadDim / 2; ++j) o[j] *= factor[j / 2 % 2];
      Pack(s, decisions, weights);
    }
    ptx::WgmmaFence();
    ptx::TileValues<kHeadDim>(weights, stage + kTileBytes, o);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    ptx::WgmmaResults(o);
    ring.Free(base + tiles - 1);
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

template <int kHeadDim, bool kDropout>
__global__ void __launch_bounds__(GroupsOf<kHeadDim>::kThreads, 1)
    ForwardKernel(const __grid_constant__ CudaCausalAttentionParams p,
                  const __grid_constant__ DropoutLaw law, const __grid_constant__ CausalWork shape,
                  uint32_t* out) {
  using G = GroupsOf<kHeadDim>;
  extern __shared__ uint8_t unaligned[];
  const SpaceOf<kHeadDim> space(unaligned);
  __shared__ RingOf<kHeadDim> ring;
  if (threadIdx.x == 0) ring.Init();
  __syncthreads();
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int length = static_cast<int>(p.length), group = threadIdx.x / 128;
  Schedule work(shape);
  if (group == G::kCount) {
    ptx::GiveRegisters<G::kCopyRegisters>();
    for (int round = 0, base = 0; work.Next(); ++round) {
      const KeyTiles keys(p, work, G::kCount);
      const HeadRows q = QkvRows<kHeadDim>(p, 0, work.sequence, work.head);
      ring.WaitOwnFree(round);
      for (int g = keys.idle; g < G::kCount; ++g) {
        CopyTile<kHeadDim>(q, work.first + g * 64, length, space.Own(round, g));
      }
      CopyPairs<kHeadDim>(QkvRows<kHeadDim>(p, 1, work.sequence, work.head),
                          QkvRows<kHeadDim>(p, 2, work.sequence, work.head), keys.first, keys.count,
                          length, space, ring, base, [](int, int) {});
      base += keys.count;
    }
    return;
  }
  ptx::TakeRegisters<G::kComputeRegisters>();
  for (int round = 0, base = 0; work.Next(); ++round) {
    const KeyTiles keys(p, work, G::kCount);
    const int first = work.first + group * 64, seen = first / 64 + 1 - keys.first;
    if (group >= keys.idle) {
      const QueryPair queries(first, length, keys.begins);
      const uint32_t token = static_cast<uint32_t>(work.sequence * p.length) + queries.position;
      const Attend<kHeadDim, kDropout> attend = {space.Own(round, group),
                                                 space,
                                                 ring,
                                                 law,
                                                 queries,
                                                 first,
                                                 keys.first,
                                                 base,
                                                 p.scale * 1.44269504f,
                                                 p.dropout.first_row + token,
                                                 (p.first_head + work.head) * kHeadColumns};
      float o[kHeadDim / 2] = {};
      SoftmaxState state = {{kLowest, kLowest}, {}};
      attend.Run(o, state);
      Finish<kHeadDim>(p, o, state, kDropout ? law.scale : 1.0f, work.sequence, work.head, first,
                       out);
    }
    ring.Skip(base + (group >= keys.idle ? seen : 0), base + keys.count);
    ring.FreeOwn(round);
    base += keys.count;
  }
}

template <int kHeadDim, bool kDropout>
cudaError_t Launch(const CudaCausalAttentionParams& p, void* out, cudaStream_t stream) {
  using G = GroupsOf<kHeadDim>;
  CausalWork work;
  int blocks = 0;
  const cudaError_t error = PlanWork(p, G::kRows, true, &work, &blocks);
  if (error != cudaSuccess) return error;
  return LaunchDependent(
      ForwardKernel<kHeadDim, kDropout>,
      {.grid = dim3(blocks), .block = dim3(G::kThreads), .shared_bytes = SpaceOf<kHeadDim>::kBytes},
      stream, p, MakeDropoutLaw(p.dropout), work, static_cast<uint32_t*>(out));
}

template <int kHeadDim>
cudaError_t Launch(const CudaCausalAttentionParams& p, void* out, cudaStream_t stream) {
  return p.dropout.rate > 0 ? Launch<kHeadDim, true>(p, out, stream)
                            : Launch<kHeadDim, false>(p, out, stream);
}

}  // namespace

cudaError_t LaunchCausalAttention(const CudaCausalAttentionParams& params, void* out,
                                  cudaStream_t stream) {
  switch (params.head_dim) {
    case 64:
      return Launch<64>(params, out, stream);
    case 80:
      return Launch<80>(params, out, stream);
    case 128:
      return Launch<128>(params, out, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
