// dK and dV of causal attention for training, bf16 on the tensor cores, where dQ comes from a
// kernel of its own.
#include <type_traits>

#include "kernels/attention/cuda/causal_key_gradient.cuh"
#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/base/cuda/launch.cuh"

namespace hanlin {
namespace {

// Three warpgroups where their registers last.
template <int kHeadDim>
using KeyGroups = std::conditional_t<kHeadDim == 64, Groups<3, 160>, Groups<2, 232>>;
template <int kHeadDim>
using KeySpace = TileSpace<kHeadDim, KeyGroups<kHeadDim>, 2>;
template <int kHeadDim>
using KeyRing = TileRing<KeySpace<kHeadDim>, KeyGroups<kHeadDim>>;

template <int kHeadDim, bool kDropout>
__global__ void __launch_bounds__(KeyGroups<kHeadDim>::kThreads, 1)
    KeyGradientKernel(const __grid_constant__ CudaCausalAttentionParams p,
                      const __grid_constant__ DropoutLaw law,
                      const __grid_constant__ CausalWork shape,
                      const __grid_constant__ CausalAttentionState state, const void* dout,
                      uint32_t* dqkv) {
  using G = KeyGroups<kHeadDim>;
  using Space = KeySpace<kHeadDim>;
  extern __shared__ uint8_t unaligned[];
  const Space space(unaligned);
  __shared__ KeyRing<kHeadDim> ring;
  __shared__ __align__(16) RingStatistics<Space> statistics;
  __shared__ WarpSums<kHeadDim, 2> sums[G::kCount];
  __shared__ KeptExchange exchange[kDropout ? G::kCount : 1];
  if (threadIdx.x == 0) ring.Init();
  __syncthreads();
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int length = static_cast<int>(p.length), group = ptx::Uniform(threadIdx.x / 128);
  Schedule work(shape);
  if (group == G::kCount) {
    ptx::GiveRegisters<G::kCopyRegisters>();
    for (int round = 0, base = 0; work.Next(); ++round) {
      const QueryTiles queries(p, state, work.sequence, work.first, G::kCount);
      ring.WaitOwnFree(round);
      for (int g = 0; g < queries.groups; ++g) {
        CopyOwnTiles<kHeadDim>(QkvRows<kHeadDim>(p, 1, work.sequence, work.head),
                               QkvRows<kHeadDim>(p, 2, work.sequence, work.head),
                               work.first + g * 64, length, space.Own(round, g));
      }
      const float2* const source =
          state.statistics + (work.sequence * p.heads + work.head) * state.padded_length;
      CopyPairs<kHeadDim>(QkvRows<kHeadDim>(p, 0, work.sequence, work.head),
                          OutRows<kHeadDim>(p, dout, work.sequence, work.head), queries.first,
                          queries.count, length, space, ring, base, [&](int tile, int index) {
                            const int pair = threadIdx.x % 128 * 2;
                            if (pair >= 64) return;
                            float2* const to = &statistics[index % Space::kStages][pair];
                            ptx::CopyOrZero(ptx::SharedAddress(to), source + tile * 64 + pair,
                                            true);
                          });
      base += queries.count;
    }
    return;
  }
  ptx::TakeRegisters<G::kComputeRegisters>();
  for (int round = 0, base = 0; work.Next(); ++round) {
    const QueryTiles queries(p, state, work.sequence, work.first, G::kCount);
    if (group < queries.groups) {
      const KeyGradient<kHeadDim, kDropout, Space, KeyRing<kHeadDim>> gradient = {
          p,
          law,
          state,
          space,
          ring,
          statistics,
          exchange[kDropout ? group : 0],
          sums[group],
          work.sequence,
          work.head,
          group};
      gradient.Run(queries, space.Own(round, group), base, dqkv);
    } else {
      ring.Skip(base, base + queries.count);
    }
    ring.FreeOwn(round);
    base += queries.count;
  }
}

template <int kHeadDim, bool kDropout>
cudaError_t Launch(const CudaCausalAttentionParams& p,
                   const CudaCausalAttentionGradients& gradients, const CausalAttentionState& state,
                   cudaStream_t stream) {
  CausalWork work;
  int blocks = 0;
  const cudaError_t error = PlanWork(p, KeyGroups<kHeadDim>::kRows, false, &work, &blocks);
  if (error != cudaSuccess) return error;
  return LaunchDependent(KeyGradientKernel<kHeadDim, kDropout>,
                         {.grid = dim3(blocks),
                          .block = dim3(KeyGroups<kHeadDim>::kThreads),
                          .shared_bytes = KeySpace<kHeadDim>::kBytes},
                         stream, p, MakeDropoutLaw(p.dropout), work, state, gradients.dout,
                         static_cast<uint32_t*>(gradients.dqkv));
}

}  // namespace

cudaError_t LaunchKeyGradient(const CudaCausalAttentionParams& params,
                              const CudaCausalAttentionGradients& gradients,
                              const CausalAttentionState& state, cudaStream_t stream) {
  const bool drops = params.dropout.rate > 0;
  switch (params.head_dim) {
    case 64:
      return drops ? Launch<64, true>(params, gradients, state, stream)
                   : Launch<64, false>(params, gradients, state, stream);
    case 80:
      return drops ? Launch<80, true>(params, gradients, state, stream)
                   : Launch<80, false>(params, gradients, state, stream);
    case 128:
      return drops ? Launch<128, true>(params, gradients, state, stream)
                   : Launch<128, false>(params, gradients, state, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
