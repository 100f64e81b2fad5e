// Progress of something that takes longer than a second, on stderr: a bar on a terminal, else a
// line every five seconds. Shorter work shows nothing. Not thread-safe.
#ifndef HANLIN_CLI_OUTPUT_PROGRESS_H_
#define HANLIN_CLI_OUTPUT_PROGRESS_H_

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

namespace hanlin::cli {

// "loading  37 % [###.......]"
std::string ProgressBar(std::string_view label, double fraction, int width);

class Progress {
 public:
  explicit Progress(std::string label, FILE* stream = stderr);
  // Clears the bar.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `fraction` 0..1.
  void Update(double fraction);

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_;
  FILE* stream_;
  bool terminal_;
  Clock::time_point next_;
  bool drawn_ = false;
};

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_OUTPUT_PROGRESS_H_
