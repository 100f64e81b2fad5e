// Sums of doubles over the ranks of a communicator, whose own sums are fp32: every rank's value
// travels exactly, as three floats in a place of its own, and is added in rank order.
#ifndef HANLIN_MODEL_TRAIN_COLLECTIVES_H_
#define HANLIN_MODEL_TRAIN_COLLECTIVES_H_

#include <span>

#include "absl/status/status.h"
#include "model/comm/communicator.h"

namespace hanlin {

// values[i] becomes the sum over the ranks; null or a group of one: nothing to do.
absl::Status SumOverRanks(Communicator* communicator, std::span<double> values);

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_COLLECTIVES_H_
