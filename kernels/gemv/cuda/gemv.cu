// The kernel of gemv.h. A block owns a range of rows of W and cuts them into units (row, chunk);
// warp w takes the units w, w + warps, ... Shared memory, in this order:
//     x        bf16 [batch][k], rounded up to 128 bytes
//     rings    [warps][slots][chunk] bf16, a slot rounded up to 128 bytes
//     partial  float [units][batch]: a sum per unit, added up per row by the epilogue
// Before the dependency wait: the first copies of every ring, the norm's parameters, bias. After
// it: x.
#include <cuda_bf16.h>

#include "kernels/base/cuda/linear_epilogue.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/gemv/cuda/gemv_params.h"

namespace hanlin {
namespace {

constexpr int kWarps = 16;
constexpr int kThreads = kWarps * 32;
constexpr int kSlots = 2;
constexpr int kNormVectors = 3;  // float4 of a row that one thread keeps in registers

enum class Prologue { kCopy, kNormInRegisters, kNormReread };

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

__device__ __forceinline__ float Low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float High(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// Sums of two numbers a row over the block, with one barrier; `scratch` must not be in use.
template <int kBatch>
__device__ __forceinline__ void BlockSums(float (&a)[kBatch], float (&b)[kBatch],
                                          float2 (*scratch)[kWarps]) {
#pragma unroll
  for (int row = 0; row < kBatch; ++row) {
    const float2 sums = {WarpSum(a[row]), WarpSum(b[row])};
    if (threadIdx.x % 32 == 0) scratch[row][threadIdx.x / 32] = sums;
  }
  __syncthreads();
#pragma unroll
  for (int row = 0; row < kBatch; ++row) {
    a[row] = b[row] = 0.0f;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      a[row] += scratch[row][i].x;
      b[row] += scratch[row][i].y;
    }
  }
}

__device__ __forceinline__ uint2 Normalized(float4 v, float mean, float scale, float4 g, float4 b) {
  const __nv_bfloat162 low =
      __floats2bfloat162_rn((v.x - mean) * scale * g.x + b.x, (v.y - mean) * scale * g.y + b.y);
  const __nv_bfloat162 high =
      __floats2bfloat162_rn((v.z - mean) * scale * g.z + b.z, (v.w - mean) * scale * g.w + b.w);
  return {*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high)};
}

// Adds the distances of four values from `origin`, and their squares.
__device__ __forceinline__ void AddDistances(float4 v, float origin, float* sum, float* squares) {
  const float a = v.x - origin, b = v.y - origin, c = v.z - origin, d = v.w - origin;
  *sum += (a + b) + (c + d);
  *squares += (a * a + b * b) + (c * c + d * d);
}

// The norm's parameters, fetched ahead of the wait.
struct NormRegisters {
  float4 weight[kNormVectors];
  float4 bias[kNormVectors];
};

__device__ __forceinline__ void FetchNorm(const GemvParams& p, NormRegisters& norm) {
#pragma unroll
  for (int j = 0; j < kNormVectors; ++j) {
    const int i = threadIdx.x + j * kThreads;
    if (i < p.k / 4) {
      norm.weight[j] = __ldg(reinterpret_cast<const float4*>(p.norm_weight) + i);
      norm.bias[j] = __ldg(reinterpret_cast<const float4*>(p.norm_bias) + i);
    }
  }
}

// LayerNorm of every row into xs, in one pass with one barrier: the variance comes from squared
// distances from the row's first element. That element is at most sqrt(k) deviations from the mean,
// so at most a factor of k is lost of fp32's precision, which leaves far more than bf16 stores.
// Rows of up to kNormVectors vectors a thread stay in registers and take `norm`; wider ones
// (kReread) are read twice, from L2.
template <int kBatch, bool kReread>
__device__ __forceinline__ void NormRows(const GemvParams& p, const NormRegisters& norm,
                                         float2 (*scratch)[kWarps], __nv_bfloat16* xs) {
  const int vectors = static_cast<int>(p.k / 4);
  const auto* x = static_cast<const float4*>(p.x);
  float4 v[kReread ? 1 : kBatch][kNormVectors];
  // body(j, i, value) for the j-th vector of this thread, the i-th of row b.
  const auto visit = [&](int b, auto&& body) {
    if (kReread) {
      for (int i = threadIdx.x; i < vectors; i += kThreads) body(0, i, __ldcg(x + b * vectors + i));
    } else {
#pragma unroll
      for (int j = 0; j < kNormVectors; ++j) {
        const int i = threadIdx.x + j * kThreads;
        if (i < vectors) body(j, i, v[kReread ? 0 : b][j]);
      }
    }
  };
  float origin[kBatch];
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    origin[b] = __ldcg(static_cast<const float*>(p.x) + b * p.k);
    if (!kReread) {
#pragma unroll
      for (int j = 0; j < kNormVectors; ++j) {
        const int i = threadIdx.x + j * kThreads;
        if (i < vectors) v[kReread ? 0 : b][j] = __ldcg(x + b * vectors + i);
      }
    }
  }
  float sum[kBatch] = {}, squares[kBatch] = {};
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    visit(b, [&](int, int, float4 value) { AddDistances(value, origin[b], &sum[b], &squares[b]); });
  }
  BlockSums(sum, squares, scratch);
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    const float distance = sum[b] / p.k;  // of the mean from the origin
    const float mean = origin[b] + distance;
    const float variance = fmaxf(squares[b] / p.k - distance * distance, 0.0f);
    const float scale = rsqrtf(variance + p.epsilon);
    visit(b, [&](int j, int i, float4 value) {
      const float4 g = kReread ? reinterpret_cast<const float4*>(p.norm_weight)[i] : norm.weight[j];
      const float4 c = kReread ? reinterpret_cast<const float4*>(p.norm_bias)[i] : norm.bias[j];
      reinterpret_cast<uint2*>(xs + b * p.k)[i] = Normalized(value, mean, scale, g, c);
    });
  }
}

// Adds the products of one chunk to acc, two accumulators a row: even and odd elements.
template <int kBatch>
__device__ __forceinline__ void MultiplyChunk(const uint4* w, const uint4* x, int vectors,
                                              int x_stride, float (&acc)[kBatch][2]) {
#pragma unroll 5
  for (int j = threadIdx.x % 32; j < vectors; j += 32) {
    const uint4 a = w[j];
    const uint32_t aw[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const uint4 v = x[b * x_stride + j];
      const uint32_t xw[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        acc[b][0] = fmaf(Low(aw[t]), Low(xw[t]), acc[b][0]);
        acc[b][1] = fmaf(High(aw[t]), High(xw[t]), acc[b][1]);
      }
    }
  }
}

template <Prologue kPrologue, int kBatch>
__global__ __launch_bounds__(kThreads) void GemvKernel(const __grid_constant__ GemvParams p,
                                                       int chunk) {
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ uint64_t barriers[kWarps][kSlots];
  __shared__ float2 scratch[kBatch][kWarps];
  const int k = static_cast<int>(p.k);
  const int warp = threadIdx.x / 32;
  const bool leads = threadIdx.x % 32 == 0;
  const int64_t first = p.n * blockIdx.x / gridDim.x;
  const int rows = static_cast<int>(p.n * (blockIdx.x + 1) / gridDim.x - first);
  const int pieces = (k + chunk - 1) / chunk;
  const int units = rows * pieces;
  const int slot_bytes = (chunk * 2 + 127) / 128 * 128;
  auto* xs = reinterpret_cast<__nv_bfloat16*>(shared);
  uint8_t* rings = shared + (static_cast<size_t>(kBatch) * k * 2 + 127) / 128 * 128;
  auto* partial = reinterpret_cast<float*>(rings + kWarps * kSlots * slot_bytes);
  uint8_t* ring = rings + warp * kSlots * slot_bytes;

  const auto issue = [&](int unit, int slot) {
    const int begin = unit % pieces * chunk;
    const uint32_t bytes = min(chunk, k - begin) * 2;
    ptx::ArriveExpect(&barriers[warp][slot], bytes);
    ptx::BulkCopyStreaming(ring + slot * slot_bytes,
                           p.weight + (first + unit / pieces) * p.k + begin, bytes,
                           &barriers[warp][slot]);
  };
  if (leads) {
    for (int s = 0; s < kSlots; ++s) ptx::BarrierInit(&barriers[warp][s], 1);
    ptx::FenceBarrierInit();
    for (int s = 0; s < kSlots; ++s) {
      if (warp + s * kWarps < units) issue(warp + s * kWarps, s);
    }
  }
  __syncwarp();
  ptx::StartNext();
  if (warp == 0) ptx::PrefetchToL2(p.next, blockIdx.x, gridDim.x);
  NormRegisters norm;
  if (kPrologue == Prologue::kNormInRegisters) FetchNorm(p, norm);
  // The first output of a thread has its operands here early; later ones fetch theirs at the end.
  const int row = threadIdx.x % max(rows, 1);
  const int column = threadIdx.x / max(rows, 1);
  const bool has_output = column < kBatch && rows > 0;
  const float bias = has_output && p.bias != nullptr ? __ldg(p.bias + first + row) : 0.0f;

  ptx::WaitForPrevious();
  float residual = 0.0f;
  if (has_output && p.epilogue == LinearEpilogue::kResidual) {
    residual = __ldcg(static_cast<const float*>(p.y) + column * p.n + first + row);
  }
  if (kPrologue == Prologue::kCopy) {
    const auto* x = static_cast<const uint4*>(p.x);
    for (int i = threadIdx.x; i < kBatch * k / 8; i += kThreads) {
      reinterpret_cast<uint4*>(xs)[i] = __ldcg(x + i);
    }
  } else {
    NormRows<kBatch, kPrologue == Prologue::kNormReread>(p, norm, scratch, xs);
  }
  __syncthreads();

  int slot = 0;
  uint32_t parity = 0;
  for (int unit = warp; unit < units; unit += kWarps) {
    const int begin = unit % pieces * chunk;
    ptx::BarrierWait(&barriers[warp][slot], parity);
    float acc[kBatch][2] = {};
    MultiplyChunk<kBatch>(reinterpret_cast<const uint4*>(ring + slot * slot_bytes),
                          reinterpret_cast<const uint4*>(xs + begin), min(chunk, k - begin) / 8,
                          k / 8, acc);
    __syncwarp();  // every lane has read the slot
    if (leads && unit + kSlots * kWarps < units) issue(unit + kSlots * kWarps, slot);
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const float sum = WarpSum(acc[b][0] + acc[b][1]);
      if (leads) partial[unit * kBatch + b] = sum;
    }
    slot = slot + 1 == kSlots ? 0 : slot + 1;
    if (slot == 0) parity ^= 1;
  }
  __syncthreads();

  for (int i = threadIdx.x; i < rows * kBatch; i += kThreads) {
    const int r = i % rows;
    const int b = i / rows;
    const bool early = i == threadIdx.x;
    const int64_t at = b * p.n + first + r;
    float sum = 0.0f;
    for (int c = 0; c < pieces; ++c) sum += partial[(r * pieces + c) * kBatch + b];
    if (p.bias != nullptr) sum += early ? bias : __ldg(p.bias + first + r);
    const bool late = !early && p.epilogue == LinearEpilogue::kResidual;
    StoreLinear(p.epilogue, p.y, at, sum,
                late ? __ldcg(static_cast<const float*>(p.y) + at) : residual);
  }
}

template <Prologue kPrologue, int kBatch>
cudaError_t Launch(const GemvParams& params, const GemvPlan& plan, cudaStream_t stream) {
  const auto kernel = GemvKernel<kPrologue, kBatch>;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(plan.shared_bytes));
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = plan.blocks;
  config.blockDim = kThreads;
  config.dynamicSmemBytes = plan.shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, params, plan.chunk);
}

template <Prologue kPrologue>
cudaError_t LaunchBatch(const GemvParams& params, const GemvPlan& plan, cudaStream_t stream) {
  switch (params.batch) {
    case 1:
      return Launch<kPrologue, 1>(params, plan, stream);
    case 2:
      return Launch<kPrologue, 2>(params, plan, stream);
    case 3:
      return Launch<kPrologue, 3>(params, plan, stream);
    case 4:
      return Launch<kPrologue, 4>(params, plan, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t LaunchGemv(const GemvParams& params, const GemvPlan& plan, cudaStream_t stream) {
  if (plan.warps != kWarps || plan.slots != kSlots) return cudaErrorInvalidValue;
  if (params.input == GemvInput::kBFloat16) {
    return LaunchBatch<Prologue::kCopy>(params, plan, stream);
  }
  if (params.k <= 4 * kNormVectors * kThreads) {
    return LaunchBatch<Prologue::kNormInRegisters>(params, plan, stream);
  }
  return LaunchBatch<Prologue::kNormReread>(params, plan, stream);
}

}  // namespace hanlin
