// The files of a run: OUTPUT/log.jsonl, one object a line ({"kind": "step" | "evaluation" |
// "sample" | "message", "time": seconds since 1970, …}), and the same numbers as TensorBoard
// scalars under OUTPUT/tensorboard, samples as its text. A file that cannot be written any more is
// no reason to end a run: the first failure is printed. Not thread-safe.
#ifndef HANLIN_TRAINER_LOG_RUN_LOG_H_
#define HANLIN_TRAINER_LOG_RUN_LOG_H_

#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "trainer/log/tensorboard.h"
#include "trainer/loop/observer.h"

namespace hanlin {

class RunLog : public Observer {
 public:
  static absl::StatusOr<std::unique_ptr<RunLog>> Create(const std::string& output,
                                                        bool tensorboard);
  ~RunLog() override;

  void OnMessage(const std::string& text) override;
  void OnStep(const StepReport& report) override;
  void OnEvaluation(int64_t step, const EvaluationResult& result, bool best) override;
  void OnSample(int64_t step, int number, const std::string& prompt,
                const std::string& text) override;

 private:
  RunLog(FILE* jsonl, std::unique_ptr<EventWriter> events)
      : jsonl_(jsonl), events_(std::move(events)) {}
  void WriteLine(const std::string& line);
  void WriteScalars(int64_t step, std::span<const EventWriter::Scalar> scalars);
  void Complain(const std::string& text);

  FILE* const jsonl_;
  const std::unique_ptr<EventWriter> events_;  // null: off
  bool complained_ = false;
};

}  // namespace hanlin

#endif  // HANLIN_TRAINER_LOG_RUN_LOG_H_
