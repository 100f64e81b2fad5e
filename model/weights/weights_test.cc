// Packed weights hold exactly what the checkpoint says, on every rank and with any number of
// threads.
#include "model/weights/weights.h"

#include <algorithm>
#include <cstring>

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

// Rows that do not fill panels, and a vocabulary large enough for several pieces.
ModelConfig OddConfig() {
  ModelConfig config;
  config.vocab_size = 6012;
  config.hidden_size = 72;
  config.num_layers = 3;
  config.num_heads = 6;
  config.head_dim = 12;
  config.ffn_size = 100;
  config.max_positions = 33;
  return config;
}

std::vector<float> Slice(const Checkpoint& checkpoint, TensorId id, int rank, int size) {
  std::vector<float> values(LocalShape(checkpoint.config(), id.role, size).size());
  EXPECT_OK(checkpoint.Read(id, rank, size, values.data()));
  return values;
}

// What a value becomes in the compute type.
float Round(float value, ComputeType type) {
  return type == ComputeType::kFloat32 ? value : ToFloat(ToBFloat16(value));
}

void ExpectMatrix(const PackedMatrix& matrix, const std::vector<float>& want) {
  std::vector<float> row(matrix.k);
  ASSERT_EQ(matrix.n * matrix.k, std::ssize(want));
  for (int64_t i = 0; i < matrix.n; ++i) {
    matrix.UnpackRow(i, row.data());
    for (int64_t j = 0; j < matrix.k; ++j) {
      ASSERT_EQ(row[j], Round(want[i * matrix.k + j], matrix.type)) << i << "," << j;
    }
  }
}

void ExpectVector(const float* vector, const std::vector<float>& want) {
  EXPECT_EQ(std::memcmp(vector, want.data(), want.size() * sizeof(float)), 0);
}

struct Params {
  ComputeType type;
  int tp_size;
  int threads;
};
class WeightsTest : public ::testing::TestWithParam<Params> {};
INSTANTIATE_TEST_SUITE_P(Ranks, WeightsTest,
                         ::testing::Values(Params{ComputeType::kFloat32, 1, 1},
                                           Params{ComputeType::kBFloat16, 1, 4},
                                           Params{ComputeType::kFloat32, 2, 3},
                                           Params{ComputeType::kBFloat16, 2, 2}));

TEST_P(WeightsTest, HoldTheRanksSliceOfEveryTensor) {
  const auto checkpoint = Checkpoint::Random(OddConfig());
  const auto [type, size, threads] = GetParam();
  ThreadPool pool(threads);
  for (int rank = 0; rank < size; ++rank) {
    ASSERT_OK_AND_ASSIGN(
        const auto weights,
        LoadWeights(*checkpoint, {.type = type, .tp_rank = rank, .tp_size = size}, &pool));
    const auto slice = [&, rank = rank, size = size](TensorRole role, int layer = 0) {
      return Slice(*checkpoint, {role, layer}, rank, size);
    };
    ExpectMatrix(weights->word_embedding, slice(TensorRole::kWordEmbedding));
    ExpectVector(weights->position_embedding, slice(TensorRole::kPositionEmbedding));
    ExpectVector(weights->final_ln_weight, slice(TensorRole::kFinalLnWeight));
    ExpectVector(weights->final_ln_bias, slice(TensorRole::kFinalLnBias));
    ASSERT_EQ(weights->layers.size(), 3u);
    for (int i = 0; i < 3; ++i) {
      const LayerWeights& layer = weights->layers[i];
      ExpectVector(layer.ln1_weight, slice(TensorRole::kLn1Weight, i));
      ExpectVector(layer.ln1_bias, slice(TensorRole::kLn1Bias, i));
      ExpectMatrix(layer.qkv, slice(TensorRole::kQkvWeight, i));
      ExpectVector(layer.qkv_bias, slice(TensorRole::kQkvBias, i));
      ExpectMatrix(layer.attention_out, slice(TensorRole::kAttnOutWeight, i));
      ExpectVector(layer.attention_bias, slice(TensorRole::kAttnOutBias, i));
      ExpectVector(layer.ln2_weight, slice(TensorRole::kLn2Weight, i));
      ExpectVector(layer.ln2_bias, slice(TensorRole::kLn2Bias, i));
      ExpectMatrix(layer.mlp_up, slice(TensorRole::kMlpUpWeight, i));
      ExpectVector(layer.mlp_up_bias, slice(TensorRole::kMlpUpBias, i));
      ExpectMatrix(layer.mlp_down, slice(TensorRole::kMlpDownWeight, i));
      ExpectVector(layer.mlp_down_bias, slice(TensorRole::kMlpDownBias, i));
    }
    EXPECT_EQ(weights->arena.used(), WeightBytes(OddConfig(), type, size));
  }
}

TEST(LoadWeightsTest, ProgressRisesToOne) {
  const auto checkpoint = Checkpoint::Random(OddConfig());
  ThreadPool pool(2);
  std::vector<double> heard;
  ASSERT_OK(
      LoadWeights(*checkpoint, {.progress = [&](double part) { heard.push_back(part); }}, &pool));
  ASSERT_FALSE(heard.empty());
  EXPECT_TRUE(std::is_sorted(heard.begin(), heard.end()));
  EXPECT_EQ(heard.back(), 1);
}

TEST(LoadWeightsTest, DegreeThatDoesNotDivideIsRefused) {
  const auto checkpoint = Checkpoint::Random(OddConfig());
  ThreadPool pool(1);
  EXPECT_THAT(LoadWeights(*checkpoint, {.tp_size = 5}, &pool),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("5")));
}

// A checkpoint whose file turns out damaged half-way.
class DamagedCheckpoint : public Checkpoint {
 public:
  DamagedCheckpoint() : Checkpoint(OddConfig()) {}

 protected:
  absl::Status DoReadRows(TensorId id, int, int, int64_t, int64_t, float*) const override {
    return id.layer == 2 ? DataLoss("{} is damaged", ToString(id)) : absl::OkStatus();
  }
};

TEST(LoadWeightsTest, DamageIsReportedByTheTensorsName) {
  const DamagedCheckpoint checkpoint;
  ThreadPool pool(3);
  EXPECT_THAT(LoadWeights(checkpoint, {}, &pool),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("of layer 2 is damaged")));
}

}  // namespace
}  // namespace hanlin
