// The vector loops over the vocabulary behind sampling.h and philox.h.
#ifndef HANLIN_KERNELS_SAMPLING_SAMPLING_KERNELS_H_
#define HANLIN_KERNELS_SAMPLING_SAMPLING_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/base/types.h"

namespace hanlin {

// What the noise of a draw depends on, besides the token id.
struct DrawKey {
  uint64_t seed = 0;
  uint64_t position = 0;  // absolute position of the drawn token in its sequence
  uint32_t choice = 0;
};

inline constexpr int64_t kLogitGroup =
    64;  // ids per group of group_max, and per 16 Philox counters

struct DrawResult {
  float score;  // logit + noise
  int32_t id;
};

// What top-p sums: weight(x) = rint(2^30 * Exp(max(x, -30))) for x = logit - max, where Exp is the
// polynomial of kernels/base/simd_math.h in fused multiply-adds. Weights are integers, so their
// sums are the same in any order, on any instruction set and on the GPU.
inline constexpr float kWeightOfMax = 0x1p30f;
inline constexpr float kLowestWeighed = -30.0f;  // far below the last x with a weight

struct SamplingKernels {
  // out[i] = logits[i] * factor; NaN becomes -infinity. In place allowed.
  void (*scale)(const float* logits, int64_t count, float factor, float* out);
  // maxima[g] = the largest of logits[64 g, 64 g + 64); NaN is passed over.
  void (*group_max)(const float* logits, int64_t count, float* maxima);
  // Sum of e^(logit - max).
  double (*sum_exp)(const float* logits, int64_t count, float max);
  // weights[i] of logits[i]; returns their sum.
  uint64_t (*weigh)(const float* logits, int64_t count, float max, uint32_t* weights);
  // noise[i] of ids[i], 16 of them.
  void (*noise)(const DrawKey& key, const int32_t* ids, float* noise);
  // The largest logit + noise over all ids, the lowest id among equals. `maxima` as from group_max;
  // `start` is the result of any one id: groups that cannot reach its score are passed over.
  DrawResult (*draw)(const DrawKey& key, const float* logits, int64_t count, const float* maxima,
                     DrawResult start);
};
HANLIN_DECLARE_KERNELS(SamplingKernels, kSamplingKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_SAMPLING_SAMPLING_KERNELS_H_
