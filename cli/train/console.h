// What a person sees of a training run, on stderr: on a terminal a bar that stays on one line, else
// a line a report; messages and evaluations as lines. Passes everything on to the run's log files.
// Not thread-safe.
#ifndef HANLIN_CLI_TRAIN_CONSOLE_H_
#define HANLIN_CLI_TRAIN_CONSOLE_H_

#include <cstdio>
#include <string>
#include <vector>

#include "trainer/loop/observer.h"

namespace hanlin::cli {

// "step 30/120 [##......] loss 4.3210 lr 3.0e-05 | 1234 tok/s, 41 % MFU, 512 MiB, 1m30s left"
std::string StepLine(const StepReport& report);

// "1h02m", "3m20s", "45s".
std::string ShortTime(double seconds);

class Console : public Observer {
 public:
  explicit Console(FILE* stream = stderr);
  ~Console() override;

  // Where events go besides; messages that came before are passed on first. Null: nowhere.
  void set_log(Observer* log);

  void OnMessage(const std::string& text) override;
  void OnStep(const StepReport& report) override;
  void OnEvaluation(int64_t step, const EvaluationResult& result, bool best) override;
  void OnSample(int64_t step, int number, const std::string& prompt,
                const std::string& text) override;

 private:
  void PrintLine(const std::string& line);

  FILE* const stream_;
  const bool terminal_;
  bool bar_shown_ = false;
  Observer* log_ = nullptr;
  std::vector<std::string> early_messages_;
};

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_TRAIN_CONSOLE_H_
