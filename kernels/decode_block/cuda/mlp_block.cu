// The MLP block of a decode step: each of 128 blocks holds 24 rows of the up projection and the 24
// matching columns of the down projection; a cluster of 8 adds up its blocks' shares of the output,
// each block a slice of it. And the sum that ends a chain of blocks.
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/linear_epilogue.cuh"
#include "kernels/decode_block/cuda/block_common.cuh"

namespace hanlin {
namespace decode_block {
namespace {

constexpr int kRows = kDecodeBlockFfn / kMlpBlocks;  // of the up projection, a block
constexpr int kSlice = kHidden / kCluster;           // of the output, that a block adds up
static_assert(kRows % kWarps == 0 && kSlice % 4 == 0);

struct Shared {
  __nv_bfloat16 up[kRows][kHidden];
  __nv_bfloat16 down[kRows][kHidden];  // transposed: a row is a column of W
  __nv_bfloat16 normed[kHidden];
  float hidden[kRows];
  float slices[kCluster][kSlice];
  StreamExchange stream;
  uint64_t loaded, slices_there;
};

__global__ void __launch_bounds__(kThreads) MlpBlockKernel(const MlpBlockParams p) {
  extern __shared__ __align__(128) unsigned char memory[];
  Shared* const shared = reinterpret_cast<Shared*>(memory);
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  const int rank = blockIdx.x % kCluster;
  if (t == 0) {
    ptx::BarrierInit(&shared->loaded, 1);
    ptx::BarrierInit(&shared->stream.there, 1);
    ptx::BarrierInit(&shared->slices_there, 1);
    ptx::FenceBarrierInit();
    constexpr uint32_t kBytes = sizeof(Shared::up) + sizeof(Shared::down);
    ptx::ArriveExpect(&shared->loaded, kBytes);
    ptx::ArriveExpect(&shared->stream.there, StreamExchange::kBytes);
    ptx::ArriveExpect(&shared->slices_there, sizeof(Shared::slices));
    ptx::BulkCopyStreaming(shared->up, p.packed + int64_t{blockIdx.x} * 2 * kRows * kHidden, kBytes,
                           &shared->loaded);
  }
  __syncthreads();
  ptx::ClusterArriveRelaxed();  // the barriers of the others are set up before anything is sent
  const NormConstants constants(p.norm_weight, p.norm_bias, p.in, rank);
  constexpr int kWarpRows = kRows / kWarps;
  static_assert(kWarpRows == 3);
  const float bias = p.up_bias[blockIdx.x * kRows + warp * kWarpRows + lane % kWarpRows];
  ptx::ClusterWait();
  ptx::WaitForPrevious();

  ResidualNorm<kDecodeBlockHeads>(p.in, constants, p.epsilon, rank, p.x_out, shared->normed,
                                  &shared->stream);
  ptx::BarrierWait(&shared->loaded, 0);
  float products[kWarpRows];
  WarpProducts<kWarpRows>(shared->up[warp * kWarpRows], shared->normed, products);
  if (lane < kWarpRows) {
    const float r = (lane == 0 ? products[0] : lane == 1 ? products[1] : products[2]) + bias;
    shared->hidden[warp * kWarpRows + lane] = RoundToBf16(p.gelu_erf ? GeluErf(r) : GeluTanh(r));
  }
  __syncthreads();
  if (t < kNormThreads) {
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const uint2 packed = *reinterpret_cast<const uint2*>(&shared->down[i][4 * t]);
      const float2 low = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&packed.x));
      const float2 high = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&packed.y));
      const float h = shared->hidden[i];
      sum =
          make_float4(sum.x + h * low.x, sum.y + h * low.y, sum.z + h * high.x, sum.w + h * high.y);
    }
    const int owner = 4 * t / kSlice;
    ptx::StoreAsync(ptx::ClusterAddress(&shared->slices[rank][4 * t % kSlice], owner), sum,
                    ptx::ClusterAddress(&shared->slices_there, owner));
  }
  ptx::ClusterBarrierWait(&shared->slices_there, 0);
  if (t < kSlice) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kCluster; ++i) sum += shared->slices[i][t];
    p.partials_out[blockIdx.x / kCluster * kHidden + rank * kSlice + t] = sum;
  }
}

__global__ void PackMlpKernel(const __nv_bfloat16* up, const __nv_bfloat16* down,
                              __nv_bfloat16* packed) {
  __nv_bfloat16* const piece = packed + int64_t{blockIdx.x} * 2 * kRows * kHidden;
  for (int i = threadIdx.x; i < kRows * kHidden; i += blockDim.x) {
    const int row = blockIdx.x * kRows + i / kHidden, column = i % kHidden;
    piece[i] = up[int64_t{row} * kHidden + column];
    piece[kRows * kHidden + i] = down[int64_t{column} * kDecodeBlockFfn + row];
  }
}

__global__ void __launch_bounds__(kThreads) FinishKernel(const ResidualInput in, float* x) {
  __shared__ StreamExchange exchange;
  const int rank = blockIdx.x;
  const float4 bias = Load4(in.bias, rank * kSliceLanes + threadIdx.x % kSliceLanes);
  ptx::StartNext();
  ptx::WaitForPrevious();
  const float4 slice = AddUpSlice<kMlpPartials>(in, bias, rank, &exchange);
  if (threadIdx.x < kSliceLanes) {
    reinterpret_cast<float4*>(x)[rank * kSliceLanes + threadIdx.x] = slice;
  }
}

}  // namespace
}  // namespace decode_block

cudaError_t LaunchPackMlpBlock(const BFloat16* up, const BFloat16* down, BFloat16* packed,
                               cudaStream_t stream) {
  decode_block::PackMlpKernel<<<kMlpBlocks, 256, 0, stream>>>(
      reinterpret_cast<const __nv_bfloat16*>(up), reinterpret_cast<const __nv_bfloat16*>(down),
      reinterpret_cast<__nv_bfloat16*>(packed));
  return cudaGetLastError();
}

cudaError_t LaunchMlpBlock(const MlpBlockParams& params, cudaStream_t stream) {
  return LaunchDependent(decode_block::MlpBlockKernel,
                         {.grid = dim3(kMlpBlocks),
                          .block = dim3(decode_block::kThreads),
                          .shared_bytes = sizeof(decode_block::Shared),
                          .cluster = kDecodeBlockCluster},
                         stream, params);
}

cudaError_t LaunchFinishBlocks(const ResidualInput& in, float* x, cudaStream_t stream) {
  return LaunchDependent(
      decode_block::FinishKernel,
      {.grid = dim3(kDecodeBlockCluster), .block = dim3(decode_block::kThreads), .shared_bytes = 0},
      stream, in, x);
}

}  // namespace hanlin
