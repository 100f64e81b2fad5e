// See console.h.
#include "cli/train/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace hanlin::cli {
namespace {

constexpr const char* kClearLine = "\r\x1b[2K";
constexpr int kBarWidth = 20;

}  // namespace

std::string ShortTime(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 1e9)));
  if (total >= 3600) return fmt::format("{}h{:02}m", total / 3600, total / 60 % 60);
  if (total >= 60) return fmt::format("{}m{:02}s", total / 60, total % 60);
  return fmt::format("{}s", total);
}

std::string StepLine(const StepReport& r) {
  const double done = static_cast<double>(r.step) / std::max<double>(1, r.total_steps);
  const int filled = static_cast<int>(std::clamp(done, 0.0, 1.0) * kBarWidth);
  return fmt::format(
      "step {}/{} [{}{}] loss {:.4f} lr {:.1e} | {:.0f} tok/s, {:.0f} % MFU, {} MiB, {} left",
      r.step, r.total_steps, std::string(filled, '#'), std::string(kBarWidth - filled, '.'), r.loss,
      r.learning_rate, r.tokens_per_second, 100 * r.mfu, r.memory_bytes >> 20,
      ShortTime(r.seconds_left));
}

Console::Console(FILE* stream) : stream_(stream), terminal_(isatty(fileno(stream)) != 0) {}

Console::~Console() {
  if (bar_shown_) fmt::print(stream_, "\n");
}

void Console::set_log(Observer* log) {
  log_ = log;
  if (log == nullptr) return;
  for (const std::string& text : early_messages_) log->OnMessage(text);
  early_messages_.clear();
}

void Console::PrintLine(const std::string& line) {
  fmt::print(stream_, "{}{}\n", bar_shown_ ? kClearLine : "", line);
  std::fflush(stream_);
  bar_shown_ = false;
}

void Console::OnMessage(const std::string& text) {
  PrintLine(text);
  if (log_ != nullptr) {
    log_->OnMessage(text);
  } else {
    early_messages_.push_back(text);
  }
}

void Console::OnStep(const StepReport& report) {
  if (terminal_) {
    fmt::print(stream_, "{}{}", kClearLine, StepLine(report));
    std::fflush(stream_);
    bar_shown_ = true;
  } else {
    PrintLine(StepLine(report));
  }
  if (log_ != nullptr) log_->OnStep(report);
}

void Console::OnEvaluation(int64_t step, const EvaluationResult& result, bool best) {
  std::string line =
      fmt::format("step {}: validation loss {:.4f}, ppl {:.3f}", step, result.loss, result.ppl);
  if (result.ppl_modelscope.has_value()) {
    line += fmt::format(", ppl_modelscope {:.3f}", *result.ppl_modelscope);
  }
  if (result.texts.has_value()) {
    line += fmt::format(", rouge-1 {:.4f}, rouge-l {:.4f}, bleu-4 {:.4f}", result.texts->rouge_1,
                        result.texts->rouge_l, result.texts->bleu_4);
  }
  PrintLine(line + (best ? ", the best so far" : ""));
  if (log_ != nullptr) log_->OnEvaluation(step, result, best);
}

void Console::OnSample(int64_t step, int number, const std::string& prompt,
                       const std::string& text) {
  PrintLine(fmt::format("sample {}: {}|{}", number, prompt, text));
  if (log_ != nullptr) log_->OnSample(step, number, prompt, text);
}

}  // namespace hanlin::cli
