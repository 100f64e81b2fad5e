// See progress.h.
#include "cli/output/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace hanlin::cli {
namespace {

constexpr std::chrono::milliseconds kQuiet{1000};
constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::milliseconds kLine{5000};

}  // namespace

std::string ProgressBar(std::string_view label, double fraction, int width) {
  fraction = std::clamp(fraction, 0.0, 1.0);
  const int full = static_cast<int>(fraction * width);
  return fmt::format("{} {:3.0f} % [{}{}]", label, fraction * 100, std::string(full, '#'),
                     std::string(width - full, '.'));
}

Progress::Progress(std::string label, FILE* stream)
    : label_(std::move(label)),
      stream_(stream),
      terminal_(isatty(fileno(stream)) == 1),
      next_(Clock::now() + kQuiet) {}

Progress::~Progress() {
  if (!drawn_ || !terminal_) return;
  fputs("\r\033[K", stream_);
  fflush(stream_);
}

void Progress::Update(double fraction) {
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  const std::string text =
      terminal_ ? fmt::format("\r{}", ProgressBar(label_, fraction, 40))
                : fmt::format("{} {:.0f} %\n", label_, std::clamp(fraction, 0.0, 1.0) * 100);
  fputs(text.c_str(), stream_);
  fflush(stream_);
  drawn_ = true;
  next_ = now + (terminal_ ? kRedraw : kLine);
}

}  // namespace hanlin::cli
