// The numbers of a step, and checks before the launches.
#include "kernels/optim/cuda/adamw.h"

#include <cmath>

#include "common/cuda/status.h"

namespace hanlin {

absl::Status CudaAdamW(const CudaAdamWArrays& arrays, const AdamWParams& p, cudaStream_t stream) {
  if (arrays.count < 1 || arrays.gradients == nullptr || arrays.m == nullptr ||
      arrays.v == nullptr ||
      (arrays.parameters == nullptr && (arrays.high == nullptr || arrays.low == nullptr))) {
    return InvalidArgument("AdamW of {} elements lacks an array", arrays.count);
  }
  const double correction1 = 1 - std::pow(p.beta1, static_cast<double>(p.step));
  const double correction2 = 1 - std::pow(p.beta2, static_cast<double>(p.step));
  const AdamWNumbers numbers = {.gradient_scale = p.gradient_scale,
                                .decay = static_cast<float>(1 - p.learning_rate * p.weight_decay),
                                .beta1_rest = static_cast<float>(1 - p.beta1),
                                .beta2 = static_cast<float>(p.beta2),
                                .beta2_rest = static_cast<float>(1 - p.beta2),
                                .step_size = static_cast<float>(p.learning_rate / correction1),
                                .inverse_root = static_cast<float>(1 / std::sqrt(correction2)),
                                .epsilon = static_cast<float>(p.epsilon)};
  return CudaStatus(LaunchAdamW(arrays, numbers, stream), "launch of AdamW");
}

absl::Status CudaSumOfSquares(const float* x, int64_t count, bool add, double* partials,
                              double* sum, cudaStream_t stream) {
  return CudaStatus(LaunchSumOfSquares(x, count, add, partials, sum, stream),
                    "launch of a sum of squares");
}

}  // namespace hanlin
