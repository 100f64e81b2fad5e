// What a training run tells the outside. Called by the rank that writes (rank 0), on its thread.
#ifndef HANLIN_TRAINER_LOOP_OBSERVER_H_
#define HANLIN_TRAINER_LOOP_OBSERVER_H_

#include <cstdint>
#include <string>

#include "trainer/loop/evaluate.h"

namespace hanlin {

struct StepReport {
  int64_t step = 0;  // 1-based: steps done
  int64_t total_steps = 0;
  int64_t epoch = 0;
  double loss = 0;
  double learning_rate = 0;
  double gradient_norm = 0;      // before clipping
  double tokens_per_second = 0;  // of input, padding not counted; since the report before
  double mfu = 0;  // see FlopsPerToken; share of the matrix product's rate measured at the start
  double data_wait_seconds = 0;  // for batches, since the report before
  uint64_t memory_bytes = 0;     // of this process, resident
  uint64_t peak_memory_bytes = 0;
  double seconds_left = 0;
};

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnMessage(const std::string& text) = 0;
  virtual void OnStep(const StepReport& report) = 0;
  virtual void OnEvaluation(int64_t step, const EvaluationResult& result, bool best) = 0;
  // What the model says after a prompt of evaluation.samples; `number` counts them from 1.
  virtual void OnSample(int64_t step, int number, const std::string& prompt,
                        const std::string& text) = 0;
};

}  // namespace hanlin

#endif  // HANLIN_TRAINER_LOOP_OBSERVER_H_
