// See pass.h.
#include "model/forward/pass.h"

#include <algorithm>
#include <numeric>

namespace hanlin {
namespace {

// Appends tokens [from, to) of the step, all of `sequence`, to the pass that began at token
// `pass_begin`.
void AppendRun(const StepBatch& step, const StepSequence& sequence, int32_t from, int32_t to,
               int32_t pass_begin, Pass* pass) {
  const int32_t position = sequence.context_tokens + (from - sequence.first_token);
  pass->segments.push_back({.first_row = from - pass_begin,
                            .rows = to - from,
                            .first_position = position,
                            .block_table = step.block_table.data() + sequence.first_block});
  const size_t begin = pass->positions.size();
  pass->positions.resize(begin + (to - from));
  std::iota(pass->positions.begin() + begin, pass->positions.end(), position);
}

}  // namespace

std::vector<Pass> CutIntoPasses(const StepBatch& step, int32_t max_tokens) {
  std::vector<Pass> passes;
  const int32_t total = static_cast<int32_t>(step.tokens.size());
  size_t sequence = 0;
  auto logit_row = step.logit_rows.begin();
  for (int32_t begin = 0; begin < total; begin += max_tokens) {
    const int32_t end = std::min(total, begin + max_tokens);
    Pass& pass = passes.emplace_back();
    pass.tokens = step.tokens.subspan(begin, end - begin);
    for (int32_t token = begin; token < end;) {
      const StepSequence& current = step.sequences[sequence];
      const int32_t sequence_end = current.first_token + current.num_tokens;
      const int32_t run_end = std::min(end, sequence_end);
      AppendRun(step, current, token, run_end, begin, &pass);
      token = run_end;
      if (run_end == sequence_end) ++sequence;
    }
    for (; logit_row != step.logit_rows.end() && *logit_row < end; ++logit_row) {
      pass.logit_rows.push_back(*logit_row - begin);
    }
  }
  return passes;
}

}  // namespace hanlin
