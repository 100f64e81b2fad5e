// An executor without a model: the next id is a function of its position. A real engine around it
// shows what everything but the model costs, and its options inject delays and failures into tests.
// Thread safety: Execute is the engine's; the counters may be read by any thread.
#ifndef HANLIN_WORKER_ENGINE_NULL_EXECUTOR_H_
#define HANLIN_WORKER_ENGINE_NULL_EXECUTOR_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "model/config/config.h"
#include "worker/engine/executor.h"

namespace hanlin {

class NullExecutor : public SyncExecutor {
 public:
  struct Options {
    ModelConfig config;
    // Time that a step takes.
    absl::Duration delay = absl::ZeroDuration();
    // Called before each step with its plan; an error is the step's. May be empty.
    std::function<absl::Status(const StepPlan&)> before_step;
  };
  explicit NullExecutor(Options options);

  absl::Status Execute(const StepPlan& plan, StepOutput* output) override;

  // The id at a position: ordinary ids (no end token) in turn.
  int32_t IdAt(int64_t position) const;

 private:
  const Options options_;
  std::vector<int32_t> ids_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_NULL_EXECUTOR_H_
