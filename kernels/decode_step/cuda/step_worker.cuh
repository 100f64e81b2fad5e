// The phases that multiply: every warp multiplies the units that come to its slots and leaves sums
// in shared memory; warp 0 adds them up, stores the block's rows and waits for the other blocks;
// then all warps load the vector of the next phase.
#ifndef HANLIN_KERNELS_DECODE_STEP_CUDA_STEP_WORKER_CUH_
#define HANLIN_KERNELS_DECODE_STEP_CUDA_STEP_WORKER_CUH_

#include <cuda_bf16.h>

#include "kernels/base/cuda/linear_epilogue.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/decode_step/cuda/crew.cuh"
#include "kernels/decode_step/cuda/step_layout.cuh"

namespace hanlin::decode_step {

template <typename L>
class Worker {
 public:
  __device__ explicit Worker(Crew<L>& crew) : crew_(crew) {}

  // Parameters of a LayerNorm, fetched before its vector is there.
  struct Norm {
    static constexpr int kVectors = (L::kHidden / 4 + L::kConsumers - 1) / L::kConsumers;
    float4 weight[kVectors], bias[kVectors];
  };

  // Brings this block's part of a layer's vectors into L2: they are too small for the ring and too
  // late from memory, whose queue takes microseconds. By one warp.
  __device__ void PrefetchVectors(const DecodeStepLayer& w) const {
    const auto fetch = [](const float* from, int count) {
      ptx::BulkPrefetchToL2(from, count * sizeof(float));
    };
    if (crew_.lane < 3) {
      fetch(w.qkv_bias + QkvRow(crew_.lane * L::kHeadRows), L::kHeadRows);
    } else if (crew_.lane == 3) {
      fetch(w.out_bias + crew_.place.block * L::kRows, L::kRows);
    } else if (crew_.lane == 4) {
      fetch(w.up_bias + crew_.place.block * L::kUpRows, L::kUpRows);
    } else if (crew_.lane == 5) {
      fetch(w.down_bias + crew_.place.block * L::kRows, L::kRows);
    } else if (crew_.lane < 10) {
      const float* const norm = crew_.lane == 6   ? w.norm1_weight
                                : crew_.lane == 7 ? w.norm1_bias
                                : crew_.lane == 8 ? w.norm2_weight
                                                  : w.norm2_bias;
      fetch(norm + crew_.place.block * L::kRows, L::kRows);
    }
  }

  __device__ void FetchNorm(const float* weight, const float* bias, Norm& norm) const {
#pragma unroll
    for (int j = 0; j < Norm::kVectors; ++j) {
      const int i = threadIdx.x + j * L::kConsumers;
      if (i < L::kHidden / 4) {
        norm.weight[j] = ptx::LoadConstant(reinterpret_cast<const float4*>(weight) + i);
        norm.bias[j] = ptx::LoadConstant(reinterpret_cast<const float4*>(bias) + i);
      }
    }
  }

  // Starts behind the kernels before this one.
  __device__ void Begin() {
    if (crew_.warp == 0 && crew_.lane < L::kRows) {
      residual_ = __ldcg(crew_.p.x + crew_.place.block * L::kRows + crew_.lane);
    }
  }

  // shared.x = LayerNorm of the residual stream. The variance comes from squared distances from the
  // first element (see gemv.cu).
  __device__ void LoadNormed(const Norm& norm) {
    constexpr int kVectors = Norm::kVectors;
    const float origin = __ldcg(crew_.p.x);
    float4 v[kVectors];
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int i = threadIdx.x + j * L::kConsumers;
      if (i < L::kHidden / 4) v[j] = __ldcg(reinterpret_cast<const float4*>(crew_.p.x) + i);
    }
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      if (threadIdx.x + j * L::kConsumers >= L::kHidden / 4) continue;
      const float a = v[j].x - origin, b = v[j].y - origin;
      const float c = v[j].z - origin, d = v[j].w - origin;
      sum += (a + b) + (c + d);
      squares += (a * a + b * b) + (c * c + d * d);
    }
    sum = WarpSum(sum);
    squares = WarpSum(squares);
    if (crew_.lane == 0) crew_.shared.scratch[crew_.warp] = make_float2(sum, squares);
    crew_.Synchronize();
    sum = squares = 0.0f;
#pragma unroll
    for (int i = 0; i < L::kWarps; ++i) {
      sum += crew_.shared.scratch[i].x;
      squares += crew_.shared.scratch[i].y;
    }
    const float distance = sum / L::kHidden, mean = origin + distance;
    const float variance = fmaxf(squares / L::kHidden - distance * distance, 0.0f);
    const float scale = rsqrtf(variance + crew_.p.epsilon);
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int i = threadIdx.x + j * L::kConsumers;
      if (i >= L::kHidden / 4) continue;
      const float4 x = v[j], g = norm.weight[j], c = norm.bias[j];
      reinterpret_cast<uint2*>(crew_.shared.x)[i] = {
          PackBFloat16((x.x - mean) * scale * g.x + c.x, (x.y - mean) * scale * g.y + c.y),
          PackBFloat16((x.z - mean) * scale * g.z + c.z, (x.w - mean) * scale * g.w + c.w)};
    }
    crew_.Synchronize();
  }

  __device__ void Qkv(const DecodeStepLayer& w) {
    constexpr int kPasses = (L::kQkvRows + 31) / 32;
    float bias[kPasses];
    if (crew_.warp == 0) {
      FetchBias(bias, L::kQkvRows, [&](int r) { return w.qkv_bias + QkvRow(r); });
    }
    Multiply<1>(L::kUnits[kQkv]);
    crew_.Synchronize();
    if (crew_.warp == 0) {
      auto* y = reinterpret_cast<__nv_bfloat16*>(crew_.p.qkv);
      ForRows(bias, L::kQkvRows,
              [&](int r, float b) { y[QkvRow(r)] = __float2bfloat16(RowSum<1>(r) + b); });
      crew_.SynchronizeHead();
    }
    crew_.Synchronize();
  }

  // The residual stream += rows of out (one chunk) or down, then fetches the norm behind it.
  template <int kChunks>
  __device__ void AddToStream(int units, const float* biases, const float* norm_weight,
                              const float* norm_bias, Norm& norm, bool last) {
    const int row = crew_.place.block * L::kRows + crew_.lane;
    float bias = 0.0f;
    if (crew_.warp == 0 && crew_.lane < L::kRows) bias = ptx::LoadConstant(biases + row);
    Multiply<kChunks>(units);
    if (!last) FetchNorm(norm_weight, norm_bias, norm);
    crew_.Synchronize();
    if (crew_.warp == 0) {
      if (crew_.lane < L::kRows) crew_.p.x[row] = residual_ += RowSum<kChunks>(crew_.lane) + bias;
      if (!last) crew_.SynchronizeGrid();
    }
    crew_.Synchronize();
  }

  __device__ void Up(const DecodeStepLayer& w) {
    constexpr int kPasses = (L::kUpRows + 31) / 32;
    const int first = crew_.place.block * L::kUpRows;
    float bias[kPasses];
    if (crew_.warp == 0) FetchBias(bias, L::kUpRows, [&](int r) { return w.up_bias + first + r; });
    Multiply<1>(L::kUnits[kUp]);
    crew_.Synchronize();
    if (crew_.warp == 0) {
      const LinearEpilogue gelu =
          crew_.p.gelu_erf ? LinearEpilogue::kGeluErf : LinearEpilogue::kGeluTanh;
      ForRows(bias, L::kUpRows, [&](int r, float b) {
        StoreLinear(gelu, crew_.p.mlp, first + r, RowSum<1>(r) + b, 0.0f);
      });
      crew_.SynchronizeGrid();
    }
    crew_.Synchronize();
  }

  // shared.x = the MLP's inner vector.
  __device__ void LoadMlp() {
    constexpr int kLoads = 4 * L::kHidden / 8 / L::kConsumers;
    static_assert(kLoads * L::kConsumers * 8 == 4 * L::kHidden, "the same for every thread");
    uint4 v[kLoads];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      v[j] = __ldcg(reinterpret_cast<const uint4*>(crew_.p.mlp) + threadIdx.x + j * L::kConsumers);
    }
#pragma unroll
    for (int j = 0; j < kLoads; ++j) crew_.shared.x[threadIdx.x + j * L::kConsumers] = v[j];
    crew_.Synchronize();
  }

 private:
  // Row r of the block's QKV rows as a row of the matrix.
  __device__ int QkvRow(int r) const {
    return r / L::kHeadRows * L::kHidden + crew_.place.head * L::kHeadDim +
           crew_.place.split * L::kHeadRows + r % L::kHeadRows;
  }

  // Sums of the phase's rows to shared.sums, eight parts a row and unit. Lane 4 g + t multiplies
  // vectors of both rows of a unit with those of x; the tensor core adds up the four lanes of g: A
  // has the rows' vectors in the lines g and g + 8, B those of x in column g, so that the diagonals
  // of both halves are what is wanted.
  template <int kChunks>
  __device__ void Multiply(int units) {
    crew_.ForUnits(units, [&](int i, const uint4* slot) {
      constexpr int kVectors = L::kHidden / 8;
      const uint4* const x = crew_.shared.x + i % kChunks * kVectors;
      float even[4] = {}, odd[4] = {};
#pragma unroll
      for (int j = 0; j < kVectors; j += 32) {
        const uint4 a = slot[j + crew_.lane], b = slot[kVectors + j + crew_.lane],
                    v = x[j + crew_.lane];
        ptx::MultiplyBFloat16(even, a.x, b.x, a.y, b.y, v.x, v.y);
        ptx::MultiplyBFloat16(odd, a.z, b.z, a.w, b.w, v.z, v.w);
      }
      const int g = crew_.lane / 4;
      if (crew_.lane % 4 == g / 2) {
        const bool second = g % 2 == 1;
        crew_.shared.sums[i][0][g] = second ? even[1] + odd[1] : even[0] + odd[0];
        crew_.shared.sums[i][1][g] = second ? even[3] + odd[3] : even[2] + odd[2];
      }
    });
    crew_.Pass(units);
  }

  template <int kChunks>
  __device__ float RowSum(int r) const {
    float sum = 0.0f;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const auto* parts =
          reinterpret_cast<const float4*>(crew_.shared.sums[r / 2 * kChunks + c][r % 2]);
      const float4 v = parts[0], w = parts[1];
      sum += ((v.x + v.y) + (v.z + v.w)) + ((w.x + w.y) + (w.z + w.w));
    }
    return sum;
  }

  template <int kPasses, typename At>
  __device__ void FetchBias(float (&bias)[kPasses], int rows, At&& at) const {
#pragma unroll
    for (int j = 0; j < kPasses; ++j) {
      if (crew_.lane + 32 * j < rows) bias[j] = ptx::LoadConstant(at(crew_.lane + 32 * j));
    }
  }
  template <int kPasses, typename Body>
  __device__ void ForRows(const float (&bias)[kPasses], int rows, Body&& body) const {
#pragma unroll
    for (int j = 0; j < kPasses; ++j) {
      if (crew_.lane + 32 * j < rows) body(crew_.lane + 32 * j, bias[j]);
    }
  }

  Crew<L>& crew_;
  float residual_ = 0.0f;  // in warp 0: row `lane` of the block
};

}  // namespace hanlin::decode_step

#endif  // HANLIN_KERNELS_DECODE_STEP_CUDA_STEP_WORKER_CUH_
