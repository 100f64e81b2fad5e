// See schedule.h.
#include "trainer/schedule/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace hanlin {

double LearningRate(const TrainConfig& config, int64_t step, int64_t total_steps) {
  const TrainConfig::Schedule& schedule = config.schedule;
  const double lr = config.optimizer.lr;
  const auto t = static_cast<double>(step * schedule.stride);
  const auto end = static_cast<double>(total_steps * schedule.stride);
  const auto warmup = static_cast<double>(schedule.warmup);
  if (schedule.type == "noam") {
    return lr * std::min(1 / std::sqrt(t + 1), (t + 1) * std::pow(std::max(1.0, warmup), -1.5));
  }
  if (t < warmup) return lr * std::min(1.0, (t + 1) / warmup);
  if (schedule.type == "constant") return lr;
  const double done = std::clamp((t - warmup) / std::max(1.0, end - warmup), 0.0, 1.0);
  const double rest =
      schedule.type == "cosine" ? 0.5 * (1 + std::cos(std::numbers::pi * done)) : 1 - done;
  return lr * (schedule.final_ratio + (1 - schedule.final_ratio) * rest);
}

}  // namespace hanlin
