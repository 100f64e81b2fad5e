// LayerNorm as training needs it: the forward pass that keeps each row's mean and 1 / standard
// deviation, and the backward pass. A row's dx depends on that row alone; dweight and dbias add the
// rows in ascending order per column, so no result depends on the number of threads.
#ifndef HANLIN_KERNELS_NORM_CPU_LAYER_NORM_BACKWARD_H_
#define HANLIN_KERNELS_NORM_CPU_LAYER_NORM_BACKWARD_H_

#include <cstdint>

#include "common/threading/thread_pool.h"
#include "kernels/base/array.h"

namespace hanlin {

// y = (x - mean) * rstd * weight + bias, rows dense.
struct LayerNormTrainParams {
  int64_t rows = 0;
  int64_t width = 0;
  const float* x = nullptr;       // [rows, width]
  const float* weight = nullptr;  // [width]
  const float* bias = nullptr;    // [width]
  float epsilon = 1e-5f;
  float* mean = nullptr;  // [rows], written
  float* rstd = nullptr;  // [rows], written
  Array y;                // [rows, width]
};
void LayerNormTrain(const LayerNormTrainParams& params, ThreadPool& pool);

// With xhat = (x - mean) rstd and g = dy weight:
//   dx += rstd (g - mean(g) - xhat mean(g xhat)),  dweight += sum dy xhat,  dbias += sum dy
struct LayerNormBackwardParams {
  int64_t rows = 0;
  int64_t width = 0;
  const float* x = nullptr;       // [rows, width]
  const float* weight = nullptr;  // [width]
  const float* mean = nullptr;    // [rows]
  const float* rstd = nullptr;    // [rows]
  const float* dy = nullptr;      // [rows, width]
  float* dx = nullptr;            // [rows, width], added to
  float* dweight = nullptr;       // [width], added to
  float* dbias = nullptr;         // [width], added to
};
void LayerNormBackward(const LayerNormBackwardParams& params, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_NORM_CPU_LAYER_NORM_BACKWARD_H_
