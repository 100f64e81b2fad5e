// Learning rates over a run. Pure functions.
//
// With t the 0-based step, W the warm-up and N the steps of the run:
//   noam      lr min((t+1)^-1/2, (t+1) W^-3/2), the recipes' "noam": its peak is lr / sqrt(W)
//   cosine    lr (t+1)/W while t < W, then lr (r + (1-r) (1 + cos(pi (t-W)/(N-W))) / 2)
//   linear    the same warm-up, then straight from lr to r lr
//   constant  the same warm-up, then lr
#ifndef HANLIN_TRAINER_SCHEDULE_SCHEDULE_H_
#define HANLIN_TRAINER_SCHEDULE_SCHEDULE_H_

#include <cstdint>

#include "trainer/config/config.h"

namespace hanlin {

// Rate of optimizer step `step` (0-based) of `total_steps`. With config.schedule.stride n > 1 the
// schedule runs n steps an optimizer step and is looked at in the first step and after each n, as
// ModelScope's hooks do under accumulation: t = step * n.
double LearningRate(const TrainConfig& config, int64_t step, int64_t total_steps);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_SCHEDULE_SCHEDULE_H_
