// See collectives.h.
#include "model/train/collectives.h"

#include <vector>

#include "common/status/status.h"

namespace hanlin {

absl::Status SumOverRanks(Communicator* communicator, std::span<double> values) {
  if (communicator == nullptr || communicator->size() == 1) return absl::OkStatus();
  constexpr int kParts = 3;  // 3 x 24 bits hold the 53 of a double
  const size_t count = values.size();
  std::vector<float> parts(count * kParts * communicator->size());
  for (size_t i = 0; i < count; ++i) {
    double rest = values[i];
    for (int p = 0; p < kParts; ++p) {
      const auto part = static_cast<float>(rest);
      parts[(communicator->rank() * count + i) * kParts + p] = part;
      rest -= part;
    }
  }
  RETURN_IF_ERROR(communicator->AllReduceSum(parts));
  for (size_t i = 0; i < count; ++i) {
    values[i] = 0;
    for (int rank = 0; rank < communicator->size(); ++rank) {
      const float* const p = parts.data() + (rank * count + i) * kParts;
      values[i] += (double{p[0]} + p[1]) + p[2];
    }
  }
  return absl::OkStatus();
}

}  // namespace hanlin
