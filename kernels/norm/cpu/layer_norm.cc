// Spreads rows over the pool; norm_simd.cc does the work.
#include "kernels/norm/cpu/layer_norm.h"

#include "kernels/base/isa.h"
#include "kernels/norm/cpu/norm_kernels.h"

namespace hanlin {

void LayerNorm(const LayerNormParams& params, ThreadPool& pool) {
  const NormKernels& kernels = HANLIN_ACTIVE_KERNELS(kNormKernels);
  pool.ParallelFor(params.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      std::byte* y =
          static_cast<std::byte*>(params.y) + r * params.y_stride * SizeOf(params.y_type);
      kernels.layer_norm({params.width, params.x + r * params.x_stride, params.weight, params.bias,
                          params.epsilon, y, params.y_type});
    }
  });
}

void ResidualAdd(const ResidualAddParams& params, ThreadPool& pool) {
  const NormKernels& kernels = HANLIN_ACTIVE_KERNELS(kNormKernels);
  pool.ParallelFor(params.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      kernels.residual_add(params.delta + r * params.width, params.bias, params.width,
                           params.x + r * params.width);
    }
  });
}

void ConvertToBFloat16(const float* x, int64_t count, BFloat16* y, ThreadPool& pool) {
  const NormKernels& kernels = HANLIN_ACTIVE_KERNELS(kNormKernels);
  pool.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
    kernels.to_bfloat16(x + begin, end - begin, y + begin);
  });
}

}  // namespace hanlin
