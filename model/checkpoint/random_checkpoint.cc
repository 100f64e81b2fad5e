// Weights without a file: Checkpoint::Random. Element i of a tensor (canonical, unsharded,
// row-major) is a function of a key of the tensor and i, so a rank computes its slice alone. Drawn
// with a counter-based generator: SplitMix64's finaliser (Steele, Lea, Flood 2014) of key + i ·
// golden ratio; its four 16-bit parts are added, which is a normal distribution up to the fourth
// moment's 10 % (enough for weights that only have to be of the right size) at one hash an element.
#include <array>
#include <cmath>

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/weight_map.h"

namespace hanlin {
namespace {

constexpr double kStd = 0.02;  // init_method_std of ModelScope's configuration

inline uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// dst[j] = normal(key, index + j) * scale.
void Draw(uint64_t key, uint64_t index, int64_t count, float scale, float* dst) {
  constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15u;
  uint64_t counter = key + index * kGoldenRatio;
  for (int64_t j = 0; j < count; ++j, counter += kGoldenRatio) {
    const uint64_t bits = Mix(counter);
    const auto sum = static_cast<int32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                          (bits >> 32 & 0xffff) + (bits >> 48));
    dst[j] = static_cast<float>(sum - 2 * 65535) * scale;
  }
}

class RandomCheckpoint final : public Checkpoint {
 public:
  RandomCheckpoint(const ModelConfig& config, uint64_t seed) : Checkpoint(config), seed_(seed) {}

 private:
  absl::Status DoReadRows(TensorId id, int tp_rank, int tp_size, int64_t row_begin, int64_t row_end,
                          float* dst) const override;

  // Row of the unsharded tensor behind a row of the slice.
  int64_t FullRow(TensorRole role, int tp_rank, int tp_size, int64_t row) const {
    const int64_t rows = LocalShape(config(), role, tp_size).rows;
    if (SplitOf(role) == TensorSplit::kRows) return tp_rank * rows + row;
    if (SplitOf(role) != TensorSplit::kQkvRows) return row;
    const int64_t local_hidden = rows / 3;
    return row / local_hidden * config().hidden_size + tp_rank * local_hidden + row % local_hidden;
  }

  const uint64_t seed_;
};

absl::Status RandomCheckpoint::DoReadRows(TensorId id, int tp_rank, int tp_size, int64_t row_begin,
                                          int64_t row_end, float* dst) const {
  const int64_t cols = LocalShape(config(), id.role, tp_size).cols;
  const int64_t full_cols = LocalShape(config(), id.role, 1).cols;
  const bool is_output =
      id.role == TensorRole::kAttnOutWeight || id.role == TensorRole::kMlpDownWeight;
  const double std = is_output ? kStd / std::sqrt(2.0 * config().num_layers) : kStd;
  // Variance of the sum of four uniform 16-bit integers: 4 * (2^32 - 1) / 12.
  const auto scale = static_cast<float>(std / std::sqrt((0x1p32 - 1) / 3));
  const uint64_t key = Mix(Mix(seed_) + TensorIndex(config(), id) + 1);
  const int64_t first_col = SplitOf(id.role) == TensorSplit::kColumns ? tp_rank * cols : 0;
  // Biases and LayerNorms are constants.
  const bool is_vector = StoredShape(config(), id.role, 1).size() == 1;
  const bool is_one = id.role == TensorRole::kLn1Weight || id.role == TensorRole::kLn2Weight ||
                      id.role == TensorRole::kFinalLnWeight;
  for (int64_t row = row_begin; row < row_end; ++row) {
    float* const target = dst + (row - row_begin) * cols;
    if (is_vector) {
      *target = is_one ? 1.0f : 0.0f;
    } else {
      const int64_t index = FullRow(id.role, tp_rank, tp_size, row) * full_cols + first_col;
      Draw(key, static_cast<uint64_t>(index), cols, scale, target);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Checkpoint> Checkpoint::Random(const ModelConfig& config, uint64_t seed) {
  return std::make_unique<RandomCheckpoint>(config, seed);
}

}  // namespace hanlin
