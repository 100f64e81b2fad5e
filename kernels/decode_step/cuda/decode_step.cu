// The kernel of decode_step_params.h: sets up a block, then one warp streams the weights
// (weight_stream.cuh) and the others compute (crew.cuh,
// step_worker.cuh, head_attention.cuh).
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/decode_step/cuda/crew.cuh"
#include "kernels/decode_step/cuda/decode_step_params.h"
#include "kernels/decode_step/cuda/head_attention.cuh"
#include "kernels/decode_step/cuda/step_layout.cuh"
#include "kernels/decode_step/cuda/step_worker.cuh"
#include "kernels/decode_step/cuda/weight_stream.cuh"

namespace hanlin {
namespace decode_step {
namespace {

// Rings of 192 and 200 KB.
using Layout64 = Layout<64, 8, 3>;
using Layout80 = Layout<80, 10, 2>;

template <typename L>
__device__ __forceinline__ void Compute(const DecodeStepParams& p, typename L::Shared& shared,
                                        Place place) {
  Crew<L> crew(p, shared, place);
  HeadAttention<L> attention(crew);
  Worker<L> worker(crew);
  typename Worker<L>::Norm norm;
  const DecodeStepLayer* const layers = shared.layers;
  const bool prefetches = threadIdx.x / 32 == 1;
  if (prefetches) worker.PrefetchVectors(layers[0]);
  worker.FetchNorm(layers[0].norm1_weight, layers[0].norm1_bias, norm);
  ptx::WaitForPrevious();
  crew.Begin();
  attention.Begin();
  worker.Begin();
  for (int layer = 0; layer < p.num_layers; ++layer) {
    const DecodeStepLayer& w = layers[layer];
    const bool last = layer + 1 == p.num_layers;
    const DecodeStepLayer& next = layers[last ? layer : layer + 1];
    if (prefetches) worker.PrefetchVectors(next);
    worker.LoadNormed(norm);
    worker.Qkv(w);
    attention.Attend(layer);
    attention.LoadAttention();
    worker.template AddToStream<1>(L::kUnits[kOut], w.out_bias, w.norm2_weight, w.norm2_bias, norm,
                                   false);
    worker.LoadNormed(norm);
    worker.Up(w);
    worker.LoadMlp();
    worker.template AddToStream<L::kChunks>(L::kUnits[kDown], w.down_bias, next.norm1_weight,
                                            next.norm1_bias, norm, last);
  }
}

template <typename L>
__global__ __launch_bounds__(L::kThreads,
                             1) void StepKernel(const __grid_constant__ DecodeStepParams p) {
  extern __shared__ __align__(128) uint8_t memory[];
  auto& shared = *reinterpret_cast<typename L::Shared*>(memory);
  constexpr int kWords = sizeof(DecodeStepLayer) / sizeof(uint64_t);
  for (int i = threadIdx.x; i < p.num_layers * kWords; i += L::kThreads) {
    reinterpret_cast<uint64_t*>(shared.layers)[i] =
        __ldg(reinterpret_cast<const unsigned long long*>(p.layers) + i);
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < L::kSlots; ++i) {
      ptx::BarrierInit(&shared.full[i], 1);
      ptx::BarrierInit(&shared.empty[i], 1);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  ptx::StartNext();
  const int block = blockIdx.x;
  const Place place = {block, block / kDecodeStepSplits, block % kDecodeStepSplits};
  if (threadIdx.x >= L::kConsumers) {
    StreamWeights<L>(p, shared, place);
  } else {
    Compute<L>(p, shared, place);
  }
}

// Blocks wait for each other, so all of them must run at once: a cooperative launch.
template <typename L>
cudaError_t Launch(const DecodeStepParams& p, cudaStream_t stream) {
  const auto kernel = StepKernel<L>;
  constexpr int kBytes = sizeof(typename L::Shared);
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeCooperative;
  attributes[1].val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = kDecodeStepBlocks;
  config.blockDim = L::kThreads;
  config.dynamicSmemBytes = kBytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  return cudaLaunchKernelEx(&config, kernel, p);
}

}  // namespace
}  // namespace decode_step

cudaError_t LaunchDecodeStep(const DecodeStepParams& params, cudaStream_t stream) {
  switch (params.kv.head_dim) {
    case 64:
      return decode_step::Launch<decode_step::Layout64>(params, stream);
    case 80:
      return decode_step::Launch<decode_step::Layout80>(params, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
