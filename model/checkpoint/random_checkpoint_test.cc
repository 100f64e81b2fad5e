// Random weights: distribution, and agreement of all ranks and degrees.
#include <cmath>
#include <cstring>

#include "common/testing/testing.h"
#include "model/checkpoint/checkpoint.h"

namespace hanlin {
namespace {

std::vector<float> Read(const Checkpoint& checkpoint, TensorId id, int rank = 0, int size = 1) {
  std::vector<float> values(
      static_cast<size_t>(LocalShape(checkpoint.config(), id.role, size).size()));
  EXPECT_OK(checkpoint.Read(id, rank, size, values.data()));
  return values;
}

struct Moments {
  double mean, std, kurtosis;
};
Moments Measure(const std::vector<float>& values) {
  double sum = 0, squares = 0, fourth = 0;
  for (const float value : values) sum += value;
  const double n = static_cast<double>(values.size()), mean = sum / n;
  for (const float value : values) {
    const double square = (value - mean) * (value - mean);
    squares += square;
    fourth += square * square;
  }
  return {mean, std::sqrt(squares / n), fourth / n / (squares / n * squares / n)};
}

TEST(RandomCheckpoint, DrawsTheInitialisationOfModelScope) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Preset("base"));
  const auto checkpoint = Checkpoint::Random(config);
  for (const auto& [id, std] : std::vector<std::pair<TensorId, double>>{
           {{TensorRole::kPositionEmbedding}, 0.02},
           {{TensorRole::kQkvWeight, 3}, 0.02},
           {{TensorRole::kMlpUpWeight, 11}, 0.02},
           {{TensorRole::kAttnOutWeight, 3}, 0.02 / std::sqrt(24.0)},
           {{TensorRole::kMlpDownWeight, 0}, 0.02 / std::sqrt(24.0)}}) {
    const Moments moments = Measure(Read(*checkpoint, id));
    // 590,000 samples and more: the mean's own deviation is std / 768, that of std a thousandth.
    EXPECT_NEAR(moments.mean, 0, 5 * std / 768) << ToString(id);
    EXPECT_NEAR(moments.std, std, 0.005 * std) << ToString(id);
    EXPECT_NEAR(moments.kurtosis, 2.7, 0.05) << ToString(id);
  }
  EXPECT_THAT(Read(*checkpoint, {TensorRole::kLn1Weight, 5}), ::testing::Each(1.0f));
  EXPECT_THAT(Read(*checkpoint, {TensorRole::kFinalLnWeight}), ::testing::Each(1.0f));
  EXPECT_THAT(Read(*checkpoint, {TensorRole::kLn2Bias}), ::testing::Each(0.0f));
  EXPECT_THAT(Read(*checkpoint, {TensorRole::kQkvBias}), ::testing::Each(0.0f));
}

TEST(RandomCheckpoint, TensorsLayersAndSeedsDiffer) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Preset("base"));
  const auto one = Checkpoint::Random(config, 1), two = Checkpoint::Random(config, 2);
  EXPECT_EQ(Read(*one, {TensorRole::kQkvWeight, 0}),
            Read(*Checkpoint::Random(config, 1), {TensorRole::kQkvWeight, 0}));
  EXPECT_NE(Read(*one, {TensorRole::kQkvWeight, 0}), Read(*two, {TensorRole::kQkvWeight, 0}));
  EXPECT_NE(Read(*one, {TensorRole::kQkvWeight, 0}), Read(*one, {TensorRole::kQkvWeight, 1}));
}

TEST(RandomCheckpoint, RanksHoldSlicesOfOneModel) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Preset("base"));
  const auto checkpoint = Checkpoint::Random(config);
  const int64_t hidden = config.hidden_size;
  const auto up = Read(*checkpoint, {TensorRole::kMlpUpWeight, 1}),
             up3 = Read(*checkpoint, {TensorRole::kMlpUpWeight, 1}, 3, 4);
  EXPECT_EQ(std::memcmp(up3.data(), up.data() + 3 * up3.size(), up3.size() * sizeof(float)), 0);
  const auto qkv = Read(*checkpoint, {TensorRole::kQkvWeight, 1}),
             qkv1 = Read(*checkpoint, {TensorRole::kQkvWeight, 1}, 1, 2);
  // The first K row of rank 1 is K row hidden / 2 of the model.
  const auto row = static_cast<size_t>(hidden);
  EXPECT_EQ(std::memcmp(qkv1.data() + row / 2 * row, qkv.data() + (row + row / 2) * row,
                        row * sizeof(float)),
            0);
  const auto down = Read(*checkpoint, {TensorRole::kMlpDownWeight, 1}),
             down1 = Read(*checkpoint, {TensorRole::kMlpDownWeight, 1}, 1, 2);
  EXPECT_EQ(std::memcmp(down1.data() + 5 * 2 * row, down.data() + (5 * 4 + 2) * row,
                        2 * row * sizeof(float)),
            0);
}

}  // namespace
}  // namespace hanlin
