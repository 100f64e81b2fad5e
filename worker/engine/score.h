// Teacher-forced scoring, the same for every device: the text runs through the forward pass in
// chunks, and each chunk's logits become log-probabilities on the host. Not thread-safe beyond its
// arguments.
#ifndef HANLIN_WORKER_ENGINE_SCORE_H_
#define HANLIN_WORKER_ENGINE_SCORE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/threading/thread_pool.h"
#include "model/forward/step.h"

namespace hanlin {

// Natural log-probability of each id behind those before it; the first has none. `ids` fit the
// context and the KV cache, whose first blocks are overwritten. `run` is the forward pass: logits
// [rows, limits.vocab_size] of the step's logit rows to the host.
absl::StatusOr<std::vector<std::optional<double>>> ScoreIds(
    std::span<const int32_t> ids, const StepLimits& limits,
    const std::function<absl::Status(const StepBatch&, std::span<float>)>& run, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_SCORE_H_
