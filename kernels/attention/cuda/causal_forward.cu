// Causal attention for training, forward, bf16 on the tensor cores: prefill.cu's scheme over whole
// sequences, with documents, dropout and the log of the sum of exponentials. A block takes 64
// queries of a head for each of its warpgroups; the scores of a tile of keys are computed while the
// tile before it is added to the result.
//
// Shared memory: Q of each warpgroup, then the ring of {K, V}.
#include <cmath>
#include <type_traits>

#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/attention/cuda/tile_softmax.cuh"
#include "kernels/base/cuda/launch.cuh"

namespace hanlin {
namespace {

// Dropout's words do not fit beside three results of 128.
template <int kHeadDim, bool kDropout>
using GroupsOf = std::conditional_t<kHeadDim == 128 && kDropout, Groups<2, 224>, Groups<3, 152>>;
using Ring = TileRing<4>;
static_assert(Ring::kStages >= 3, "a warpgroup ends up to two tiles before the last one");
// Below any score, and finite: in a tile that is hidden from a query nothing minus nothing is 0.
constexpr float kLowest = -1e30f;

// One warpgroup: the tiles of keys that its 64 queries from `first` on see.
template <int kHeadDim, bool kDropout>
struct Attend {
  static constexpr int kTileBytes = ptx::HeadTile<kHeadDim>::kBytes;
  const uint8_t* q;
  const uint8_t* stages;
  Ring& ring;
  const DropoutLaw& law;
  QueryPair queries;
  int first, first_tile;
  float scale;  // to powers of 2
  uint32_t dropout_row, dropout_column;

  __device__ __forceinline__ const uint8_t* Wait(int index) const {
    ring.WaitFull(index);
    return stages + index % Ring::kStages * 2 * kTileBytes;
  }
  __device__ __forceinline__ uint32_t Kept(int index) const {
    if constexpr (!kDropout) return 0;
    return KeptOfQueryRows(law, dropout_row, dropout_column + (first_tile + index) * 64);
  }
  // Scores to weights, those that dropout takes being 0.
  __device__ __forceinline__ void Weigh(int index, uint32_t kept, SoftmaxState& state,
                                        float (&s)[32], float (&factor)[2]) const {
    const int key = (first_tile + index) * 64;
    if (queries.Hides(key, first)) HideKeys(queries, key, -INFINITY, s);
    Softmax(s, scale, state, factor);
    if constexpr (kDropout) {
#pragma unroll
      for (int e = 0; e < 32; ++e) s[e] = (kept >> e & 1) != 0 ? s[e] : 0.0f;
    }
  }

  __device__ __forceinline__ void Run(float (&o)[kHeadDim / 2], SoftmaxState& state) const {
    const int tiles = first / 64 + 1 - first_tile;
    uint32_t weights[4][4];
    float factor[2];
    const uint8_t* stage = Wait(0);
    {
      float s[32];
      ptx::WgmmaFence();
      ptx::TileScores<kHeadDim>(q, stage, s);
      ptx::WgmmaCommit();
      const uint32_t kept = Kept(0);
      ptx::WgmmaWait<0>();
      ptx::WgmmaResults(s);
      Weigh(0, kept, state, s, factor);
      PackWeights(s, weights);
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
      const uint32_t kept = Kept(index);
      ptx::WgmmaWait<1>();
      ptx::WgmmaResults(s);
      Weigh(index, kept, state, s, factor);
      ptx::WgmmaWait<0>();
      ptx::WgmmaResults(o);
      ring.Free(index - 1);
#pragma unroll
      for (int j = 0; j < kHeadDim / 2; ++j) o[j] *= factor[j / 2 % 2];
      PackWeights(s, weights);
    }
    ptx::WgmmaFence();
    ptx::TileValues<kHeadDim>(weights, stage + kTileBytes, o);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    ptx::WgmmaResults(o);
  }
};

// Divides by the sums and stores. `row`: of [sequences, heads].
template <int kHeadDim>
__device__ __forceinline__ void Finish(const CudaCausalAttentionParams& p,
                                       const float (&o)[kHeadDim / 2], const SoftmaxState& state,
                                       float dropout_scale, int first, uint32_t* out) {
  const int head = blockIdx.x, sequence = blockIdx.z;
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
__global__ void __launch_bounds__(GroupsOf<kHeadDim, kDropout>::kThreads, 1)
    ForwardKernel(const __grid_constant__ CudaCausalAttentionParams p,
                  const __grid_constant__ DropoutLaw law, uint32_t* out) {
  using G = GroupsOf<kHeadDim, kDropout>;
  constexpr int kTileBytes = ptx::HeadTile<kHeadDim>::kBytes;
  extern __shared__ uint8_t unaligned[];
  uint8_t* const shared = unaligned + (-ptx::SharedAddress(unaligned)) % kTileAlignment;
  __shared__ Ring ring;
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int head = blockIdx.x, sequence = blockIdx.z, length = static_cast<int>(p.length);
  const int first = (gridDim.y - 1 - blockIdx.y) * G::kRows;  // the longest rows start first
  const int groups = min((length - first + 63) / 64, G::kCount);
  const int32_t* const begins =
      p.document_begin == nullptr ? nullptr : p.document_begin + sequence * p.length;
  const int first_tile = begins == nullptr ? 0 : __ldcg(begins + first) / 64;
  if (threadIdx.x == 0) ring.Init(groups * 4);
  __syncthreads();
  const int group = threadIdx.x / 128;
  uint8_t* const stages = shared + G::kCount * kTileBytes;
  if (group == G::kCount) {
    ptx::GiveRegisters<G::kCopyRegisters>();
    FillRing<kHeadDim>(QkvRows<kHeadDim>(p, 1, sequence, head),
                       QkvRows<kHeadDim>(p, 2, sequence, head), first_tile,
                       first / 64 + groups - first_tile, length, stages, ring, [](int, int) {});
  } else {
    ptx::TakeRegisters<G::kComputeRegisters>();
    if (group < groups) {
      const int own = first + group * 64;
      uint8_t* const q = shared + group * kTileBytes;
      CopyTile<kHeadDim>(QkvRows<kHeadDim>(p, 0, sequence, head), own, length, q);
      ptx::CommitCopies();
      ptx::WaitForCopies<0>();
      ptx::NamedBarrier(group + 1, 128);
      const QueryPair queries(own, length, begins);
      const uint32_t token = static_cast<uint32_t>(sequence * p.length) + queries.position;
      const Attend<kHeadDim, kDropout> attend = {q,
                                                 stages,
                                                 ring,
                                                 law,
                                                 queries,
                                                 own,
                                                 first_tile,
                                                 p.scale * 1.44269504f,
                                                 p.dropout.first_row + token,
                                                 (p.first_head + head) * kHeadColumns};
      float o[kHeadDim / 2] = {};
      SoftmaxState state = {{kLowest, kLowest}, {}};
      attend.Run(o, state);
      Finish<kHeadDim>(p, o, state, kDropout ? law.scale : 1.0f, own, out);
    }
  }
}

template <int kHeadDim, bool kDropout>
cudaError_t Launch(const CudaCausalAttentionParams& p, void* out, cudaStream_t stream) {
  using G = GroupsOf<kHeadDim, kDropout>;
  constexpr int kTiles = G::kCount + 2 * Ring::kStages;
  return LaunchDependent(
      ForwardKernel<kHeadDim, kDropout>,
      {.grid = dim3(p.heads, (p.length + G::kRows - 1) / G::kRows, p.sequences),
       .block = dim3(G::kThreads),
       .shared_bytes = kTiles * ptx::HeadTile<kHeadDim>::kBytes + kTileAlignment},
      stream, p, MakeDropoutLaw(p.dropout), static_cast<uint32_t*>(out));
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
