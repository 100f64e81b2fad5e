// Parameters of the decode product, plain data that host and device code share.
#ifndef HANLIN_KERNELS_GEMV_CUDA_GEMV_PARAMS_H_
#define HANLIN_KERNELS_GEMV_CUDA_GEMV_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/base/cuda/l2_prefetch.h"
#include "kernels/base/cuda/linear_epilogue.h"
#include "kernels/base/types.h"

namespace hanlin {

inline constexpr int kGemvMaxBatch = 4;

enum class GemvInput : uint8_t {
  kBFloat16,   // x is bf16
  kLayerNorm,  // x is fp32; the product sees LayerNorm(x) rounded to bf16
};

struct GemvParams {
  int64_t n = 0;                     // outputs, any number
  int64_t k = 0;                     // inputs, a multiple of 8
  int batch = 1;                     // 1 to kGemvMaxBatch
  const BFloat16* weight = nullptr;  // [n, k], 16-byte aligned; constant while kernels run
  GemvInput input = GemvInput::kBFloat16;
  const void* x = nullptr;  // [batch, k], dense, 16-byte aligned
  const float* norm_weight =
      nullptr;  // [k], 16-byte aligned, for kLayerNorm; constant, as is norm_bias
  const float* norm_bias = nullptr;  // [k], 16-byte aligned
  float epsilon = 1e-5f;
  const float* bias = nullptr;  // [n] or null; constant
  LinearEpilogue epilogue = LinearEpilogue::kNone;
  void* y = nullptr;  // [batch, n], dense
  L2Prefetch next;    // once the first copies of W are under way
};

// How a product is laid out on the device; PlanGemv chooses it.
struct GemvPlan {
  int blocks = 0;  // one range of rows each
  int warps = 0;   // per block, each with a ring of its own
  int slots = 0;   // of a ring
  int chunk = 0;   // elements of a weight row that one slot holds, a multiple of 8
  size_t shared_bytes = 0;
};

cudaError_t LaunchGemv(const GemvParams& params, const GemvPlan& plan, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMV_CUDA_GEMV_PARAMS_H_
