// Which dropout mask is meant; the definition is in elementwise.h. Plain data, also for kernels.
#ifndef HANLIN_KERNELS_ELEMENTWISE_CPU_DROPOUT_PARAMS_H_
#define HANLIN_KERNELS_ELEMENTWISE_CPU_DROPOUT_PARAMS_H_

#include "kernels/base/types.h"

namespace hanlin {

struct DropoutParams {
  float rate = 0;  // in [0, 1); 0 is the identity
  uint64_t seed = 0;
  uint32_t step = 0;  // micro-batches since the beginning of the run
  uint32_t site = 0;  // which dropout of the model
  uint32_t first_row = 0;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ELEMENTWISE_CPU_DROPOUT_PARAMS_H_
