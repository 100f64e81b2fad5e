// The optimizer's passes over flat fp32 arrays: AdamW (Loshchilov and Hutter; PyTorch's order of
// operations) and the sum of squares for clipping by the global norm. Deterministic: the sum adds
// blocks of kNormBlock elements in ascending order, in double.
#ifndef HANLIN_KERNELS_OPTIM_CPU_ADAMW_H_
#define HANLIN_KERNELS_OPTIM_CPU_ADAMW_H_

#include <cstdint>

#include "common/threading/thread_pool.h"

namespace hanlin {

inline constexpr int64_t kNormBlock = 4096;

// With g = gradient * gradient_scale:
//   p *= 1 - lr weight_decay;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2
//   p -= lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)
struct AdamWParams {
  int64_t count = 0;
  float* parameters = nullptr;
  const float* gradients = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  float gradient_scale = 1;  // 1, or the clipping factor
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  int64_t step = 1;  // 1-based
};
void AdamW(const AdamWParams& params, ThreadPool& pool);

double SumOfSquares(const float* x, int64_t count, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_OPTIM_CPU_ADAMW_H_
