// See adamw.h.
#include "kernels/optim/cpu/adamw.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/isa.h"
#include "kernels/optim/cpu/adamw_kernels.h"

namespace hanlin {

void AdamW(const AdamWParams& p, ThreadPool& pool) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kAdamWKernels);
  const double correction1 = 1 - std::pow(p.beta1, static_cast<double>(p.step));
  const double correction2 = 1 - std::pow(p.beta2, static_cast<double>(p.step));
  AdamWChunk all = {.count = p.count, .parameters = p.parameters, .gradients = p.gradients};
  all.m = p.m;
  all.v = p.v;
  all.gradient_scale = p.gradient_scale;
  all.decay = static_cast<float>(1 - p.learning_rate * p.weight_decay);
  all.beta1_rest = static_cast<float>(1 - p.beta1);
  all.beta2 = static_cast<float>(p.beta2);
  all.beta2_rest = static_cast<float>(1 - p.beta2);
  all.step_size = static_cast<float>(p.learning_rate / correction1);
  all.inverse_root = static_cast<float>(1 / std::sqrt(correction2));
  all.epsilon = static_cast<float>(p.epsilon);
  pool.ParallelFor(p.count, [&](int64_t begin, int64_t end, int) {
    AdamWChunk chunk = all;
    chunk.count = end - begin;
    chunk.parameters += begin;
    chunk.gradients += begin;
    chunk.m += begin;
    chunk.v += begin;
    kernels.update(chunk);
  });
}

double SumOfSquares(const float* x, int64_t count, ThreadPool& pool) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kAdamWKernels);
  const int64_t blocks = (count + kNormBlock - 1) / kNormBlock;
  std::vector<double> sums(blocks);
  pool.ParallelFor(blocks, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i * kNormBlock;
      sums[i] = kernels.sum_of_squares(x + at, std::min(kNormBlock, count - at));
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace hanlin
