// A step cut into passes of a bounded number of tokens. Cuts may fall anywhere, also inside a
// sequence: the attention kernel gives a row the same bits wherever the cut was.
#ifndef HANLIN_MODEL_FORWARD_PASS_H_
#define HANLIN_MODEL_FORWARD_PASS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention/cpu/attention.h"
#include "model/forward/step.h"

namespace hanlin {

// One trip through the layers.
struct Pass {
  std::span<const int32_t> tokens;         // views the step
  std::vector<int32_t> positions;          // of the tokens
  std::vector<AttentionSegment> segments;  // rows count from the pass's first token
  std::vector<int32_t> logit_rows;         // likewise
};

// Passes of at most `max_tokens` that together are the step, in order. The step must have passed
// CheckStep and must outlive them.
std::vector<Pass> CutIntoPasses(const StepBatch& step, int32_t max_tokens);

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_PASS_H_
