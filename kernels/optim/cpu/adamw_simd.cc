// AdamW and the sum of squares, compiled once per instruction set. The loops are plain: each
// element is independent and square root and division are correctly rounded in every instruction
// set, so the compiler's vectors give the same bits.
#include <math.h>

#include "kernels/base/simd.h"
#include "kernels/optim/cpu/adamw_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

void Update(const AdamWChunk& chunk) {
  float* __restrict const p = chunk.parameters;
  const float* __restrict const gradients = chunk.gradients;
  float* __restrict const m = chunk.m;
  float* __restrict const v = chunk.v;
  const AdamWChunk c = chunk;
  for (int64_t i = 0; i < c.count; ++i) {
    const float g = gradients[i] * c.gradient_scale;
    m[i] = m[i] + c.beta1_rest * (g - m[i]);
    v[i] = c.beta2 * v[i] + c.beta2_rest * (g * g);
    const float denominator = __builtin_sqrtf(v[i]) * c.inverse_root + c.epsilon;
    p[i] = p[i] * c.decay - c.step_size * (m[i] / denominator);
  }
}

double SumOfSquaresOfBlock(const float* x, int64_t count) {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += static_cast<double>(x[i + j]) * x[i + j];
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(x[i]) * x[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace

extern const AdamWKernels kAdamWKernels = {Update, SumOfSquaresOfBlock};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
