// The row kernels behind causal_attention.h; the products are matmul.h's.
#ifndef HANLIN_KERNELS_ATTENTION_CPU_CAUSAL_ATTENTION_KERNELS_H_
#define HANLIN_KERNELS_ATTENTION_CPU_CAUSAL_ATTENTION_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/base/types.h"

namespace hanlin {

struct CausalAttentionKernels {
  // scores[0, count) becomes the softmax of scale * scores; returns log(sum e^(scale * score)).
  float (*softmax)(float* scores, int64_t count, float scale);
  // scores[0, count) becomes e^(scale * score - log_sum).
  void (*probabilities)(float* scores, int64_t count, float scale, float log_sum);
  // dp[i] becomes scale * p[i] * (dp[i] - delta).
  void (*dscores)(const float* p, int64_t count, float delta, float scale, float* dp);
  float (*dot)(const float* a, const void* b, ComputeType b_type, int64_t count);
  void (*store)(const float* x, int64_t count, void* y, ComputeType y_type);  // y = x
};
HANLIN_DECLARE_KERNELS(CausalAttentionKernels, kCausalAttentionKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CPU_CAUSAL_ATTENTION_KERNELS_H_
