// LayerNorm and the small row operations around it. Statistics are fp32 in two passes (mean, then
// squared distances); a row's result depends on that row alone. Parallel over rows.
#ifndef HANLIN_KERNELS_NORM_CPU_LAYER_NORM_H_
#define HANLIN_KERNELS_NORM_CPU_LAYER_NORM_H_

#include <cstddef>
#include <cstdint>

#include "common/threading/thread_pool.h"
#include "kernels/base/types.h"

namespace hanlin {

// y[r] = (x[r] - mean) / sqrt(variance + epsilon) * weight + bias
struct LayerNormParams {
  int64_t rows = 0;
  int64_t width = 0;
  const float* x = nullptr;       // [rows, width]
  int64_t x_stride = 0;           // elements from row to row
  const float* weight = nullptr;  // [width]
  const float* bias = nullptr;    // [width]
  float epsilon = 1e-5f;
  void* y = nullptr;     // [rows, width]; may be x (kFloat32)
  int64_t y_stride = 0;  // elements
  ComputeType y_type = ComputeType::kFloat32;
};
void LayerNorm(const LayerNormParams& params, ThreadPool& pool);

// x[r] += delta[r] + bias: the residual step after an all-reduce, where a linear layer's own
// epilogue cannot do it.
struct ResidualAddParams {
  int64_t rows = 0;
  int64_t width = 0;
  const float* delta = nullptr;  // [rows, width], dense
  const float* bias = nullptr;   // [width] or null
  float* x = nullptr;            // [rows, width], dense
};
void ResidualAdd(const ResidualAddParams& params, ThreadPool& pool);

// y[i] = x[i] rounded to bf16 (nearest even).
void ConvertToBFloat16(const float* x, int64_t count, BFloat16* y, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_NORM_CPU_LAYER_NORM_H_
