// See null_executor.h.
#include "worker/engine/null_executor.h"

#include <algorithm>
#include <thread>

#include "absl/time/clock.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

// Special tokens and single bytes come first in a vocabulary; whole pieces of text stand in its
// middle.
constexpr int32_t kMaxIds = 1000;

}  // namespace

NullExecutor::NullExecutor(Options options) : options_(std::move(options)) {
  const ModelConfig& config = options_.config;
  const int32_t begin = config.vocab_size / 4;
  const int32_t end = std::min(config.vocab_size, begin + kMaxIds);
  for (int32_t id = begin; id < end; ++id) {
    if (std::ranges::find(config.end_token_ids, id) == config.end_token_ids.end()) {
      ids_.push_back(id);
    }
  }
  if (ids_.empty()) ids_.push_back(0);
}

int32_t NullExecutor::IdAt(int64_t position) const {
  return ids_[static_cast<size_t>(position) % ids_.size()];
}

absl::Status NullExecutor::Execute(const StepPlan& plan, StepOutput* output) {
  if (options_.before_step) RETURN_IF_ERROR(options_.before_step(plan));
  if (options_.delay > absl::ZeroDuration()) absl::SleepFor(options_.delay);
  output->tokens.resize(plan.samples.size());
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    const SampleRow& row = plan.samples[i];
    int64_t position = static_cast<int64_t>(row.ids.size());
    // As many tries as there are banned ids, and one.
    for (size_t tries = 0; tries <= row.banned.size(); ++tries, ++position) {
      output->tokens[i].id = IdAt(position);
      if (std::ranges::find(row.banned, IdAt(position)) == row.banned.end()) break;
    }
    output->tokens[i].logprobs = {.token = {output->tokens[i].id, 0.0f}, .top = {}};
    if (row.request->logprobs > 0) {
      output->tokens[i].logprobs.top = {{output->tokens[i].id, 0.0f}};
    }
  }
  return absl::OkStatus();
}

}  // namespace hanlin
