// The row kernels behind cross_entropy.h.
#ifndef HANLIN_KERNELS_LOSS_CPU_CROSS_ENTROPY_KERNELS_H_
#define HANLIN_KERNELS_LOSS_CPU_CROSS_ENTROPY_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/base/types.h"

namespace hanlin {

struct CrossEntropyKernels {
  // Maximum of a row and the sum of e^(x - maximum).
  void (*stats)(const float* logits, int64_t count, float* maximum, float* sum);
  // (e^(x - log_sum) - [j = label]) * weight; a label of -1 is none. y is float* or BFloat16* by
  // y_type.
  void (*gradient)(const float* logits, int64_t count, float log_sum, float weight, int64_t label,
                   void* y, ComputeType y_type);
};
HANLIN_DECLARE_KERNELS(CrossEntropyKernels, kCrossEntropyKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_LOSS_CPU_CROSS_ENTROPY_KERNELS_H_
