// What holds for any model in training: gradients by finite differences, recomputation, reruns,
// logits, packed documents, frozen tensors, masked batches. Several ranks: parallel_test.cc.
#include "model/train/train_model.h"

#include <cmath>

#include "model/train/testing.h"

namespace hanlin {
namespace {

using testing::MakeLoadedModel;
using testing::RandomBatch;
using testing::ReadAll;
using testing::RunGrid;
using testing::SmallConfig;
using testing::WeightedLoss;
using testing::WithDropout;

struct Outcome {
  std::vector<float> losses, gradients, parameters;
};

// Two optimizer steps of two micro-batches with dropout.
Outcome TwoSteps(TrainModelOptions options, int threads) {
  ThreadPool pool(threads);
  options.weight_decay.assign(AllTensors(options.config).size(), 0.01f);
  const auto model = MakeLoadedModel(options, pool);
  Outcome outcome;
  for (uint32_t step = 0; step < 4; ++step) {
    const TrainBatch batch = RandomBatch(options.config, 3, 20, 4, step);
    std::vector<float> losses(batch.tokens.size());
    EXPECT_OK(model->ForwardBackward(batch, step, losses));
    outcome.losses.insert(outcome.losses.end(), losses.begin(), losses.end());
    if (step % 2 == 0) continue;
    EXPECT_OK(model->ReduceGradients());
    outcome.gradients = ReadAll(*model, TrainState::kGradients);
    EXPECT_OK(model->Update(1e-3, 0.5f, step / 2 + 1));
    model->ZeroGradients();
  }
  outcome.parameters = ReadAll(*model, TrainState::kParameters);
  return outcome;
}

TEST(TrainModel, GradientsMatchFiniteDifferencesAlongRandomDirections) {
  ThreadPool pool(2);
  for (const GeluKind gelu : {GeluKind::kTanh, GeluKind::kErf}) {
    TrainModelOptions options = {.config = SmallConfig()};
    options.config.gelu = gelu;
    const auto model = MakeLoadedModel(options, pool);
    const TrainBatch batch = RandomBatch(options.config, 2, 15, 3, 1);
    std::vector<float> losses(batch.tokens.size());
    ASSERT_OK(model->ForwardBackward(batch, 0, losses));
    const std::vector<float> gradients = ReadAll(*model, TrainState::kGradients);
    const std::vector<float> parameters = ReadAll(*model, TrainState::kParameters);
    for (const ParameterSlot& slot : model->layout().slots()) {
      // Along the gradient itself the slope is its norm, far above the noise of fp32.
      double norm = 0;
      for (int64_t i = 0; i < slot.shape.size(); ++i) {
        norm += std::pow(double{gradients[slot.offset + i]}, 2);
      }
      norm = std::sqrt(norm);
      if (norm < 1e-3) continue;
      const auto loss_at = [&](double distance) {
        std::vector<float> moved = parameters;
        for (int64_t i = 0; i < slot.shape.size(); ++i) {
          moved[slot.offset + i] += distance * gradients[slot.offset + i] / norm;
        }
        EXPECT_OK(model->WriteState(TrainState::kParameters, 0, moved));
        EXPECT_OK(model->Evaluate(batch, false, losses));
        return WeightedLoss(batch, losses);
      };
      const auto slope = [&](double h) { return (loss_at(h) - loss_at(-h)) / (2 * h); };
      // Richardson: the errors of h and h / 2 cancel up to the fourth power.
      const double extrapolated = (4 * slope(5e-3) - slope(1e-2)) / 3;
      ASSERT_OK(model->WriteState(TrainState::kParameters, 0, parameters));
      EXPECT_NEAR(extrapolated, norm, 1e-3 * norm + 1e-4) << ToString(slot.id);
    }
  }
}

TEST(TrainModel, RecomputationThreadsAndRerunsChangeNoBit) {
  TrainModelOptions options = WithDropout();
  const Outcome want = TwoSteps(options, 1);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    options.recompute = recompute;
    const Outcome got = TwoSteps(options, 3);
    EXPECT_EQ(got.losses, want.losses);
    EXPECT_EQ(got.gradients, want.gradients);
    EXPECT_EQ(got.parameters, want.parameters);
  }
  options.seed = 78;
  EXPECT_NE(TwoSteps(options, 1).losses, want.losses);
}

TEST(ParameterLayout, StretchesCoverTheArrayFromBehind) {
  const ModelConfig config = SmallConfig();
  const ParameterLayout layout(config, 2);
  ASSERT_EQ(layout.num_stretches(), config.num_layers + 1);
  int64_t end = layout.size();
  for (int i = 0; i < layout.num_stretches(); ++i) {
    EXPECT_EQ(layout.Stretch(i).end, end);
    end = layout.Stretch(i).begin;
    EXPECT_LT(end, layout.Stretch(i).end);
  }
  EXPECT_EQ(end, 0);
  EXPECT_EQ(layout.Stretch(0).begin, layout.Of({TensorRole::kLn1Weight, 1}).offset);
}

TEST(TrainModel, LogitsHaveTheLossesOfEvaluateOnEveryTensorRank) {
  const TrainBatch batch = RandomBatch(SmallConfig(), 3, 12, 0, 4);
  const std::vector<int64_t> positions = {0, 11, 5, 24, 35};
  for (const int tp : {1, 2, 4}) {
    RunGrid(tp, 1, [&](Communicator& tensor, Communicator& data, int, int) {
      ThreadPool pool(1);
      TrainModelOptions options = WithDropout();
      options.tensor = &tensor;
      options.data = &data;
      const auto model = MakeLoadedModel(options, pool);
      std::vector<float> losses(batch.tokens.size());
      ASSERT_OK(model->Evaluate(batch, true, losses));
      const int64_t vocabulary = options.config.vocab_size;
      std::vector<float> logits(positions.size() * vocabulary);
      ASSERT_OK(model->Logits(batch, positions, logits));
      for (size_t i = 0; i < positions.size(); ++i) {
        const float* const row = logits.data() + i * vocabulary;
        double sum = 0;
        for (int64_t id = 0; id < vocabulary; ++id) sum += std::exp(double{row[id]});
        EXPECT_NEAR(std::log(sum) - row[batch.labels[positions[i]]], losses[positions[i]], 1e-5);
      }
      EXPECT_EQ(model->Logits(batch, std::vector<int64_t>{36}, logits).code(),
                absl::StatusCode::kInvalidArgument);
    });
  }
}

TEST(TrainModel, PackedDocumentsHaveTheLossesAndGradientsOfSeparateRows) {
  ThreadPool pool(2);
  TrainModelOptions options = {.config = SmallConfig()};
  const TrainBatch apart = RandomBatch(options.config, 4, 10, 2, 5);
  TrainBatch packed = apart;
  packed.sequences = 2;
  packed.length = 20;
  for (int i = 0; i < 40; ++i) packed.document_begin.push_back(i % 20 < 10 ? 0 : 10);
  std::vector<float> losses[2], gradients[2];
  for (const bool pack : {false, true}) {
    const auto model = MakeLoadedModel(options, pool);
    losses[pack].resize(40);
    ASSERT_OK(model->ForwardBackward(pack ? packed : apart, 0, losses[pack]));
    gradients[pack] = ReadAll(*model, TrainState::kGradients);
  }
  for (int i = 0; i < 40; ++i) EXPECT_NEAR(losses[1][i], losses[0][i], 1e-5 * 4);
  for (size_t i = 0; i < gradients[0].size(); ++i) {
    ASSERT_NEAR(gradients[1][i], gradients[0][i], 1e-6);
  }
}

TEST(TrainModel, FrozenTensorsStayAndAreLeftOutOfTheNorm) {
  ThreadPool pool(1);
  TrainModelOptions options = {.config = SmallConfig()};
  const size_t tensors = AllTensors(options.config).size();
  options.frozen.assign(tensors, true);
  options.frozen.back() = false;  // the bias of the final LayerNorm
  options.weight_decay.assign(tensors, 0.1f);
  const auto model = MakeLoadedModel(options, pool);
  const std::vector<float> before = ReadAll(*model, TrainState::kParameters);
  const TrainBatch batch = RandomBatch(options.config, 1, 8, 0, 1);
  std::vector<float> losses(8);
  ASSERT_OK(model->ForwardBackward(batch, 0, losses));
  ASSERT_OK(model->ReduceGradients());
  const std::vector<float> gradients = ReadAll(*model, TrainState::kGradients);
  ASSERT_OK(model->Update(1e-2, 1, 1));
  const std::vector<float> after = ReadAll(*model, TrainState::kParameters);
  const ParameterSlot& trained = model->layout().slots().back();
  double squares = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(before.size()); ++i) {
    const bool free = i >= trained.offset && i < trained.offset + trained.shape.size();
    EXPECT_EQ(before[i] != after[i], free) << i;
    squares += double{gradients[i]} * gradients[i];
  }
  EXPECT_NEAR(model->GradientNorm().value(), std::sqrt(squares), 1e-6);
}

TEST(TrainModel, AnAllMaskedBatchHasNoLossAndNoGradient) {
  ThreadPool pool(1);
  TrainModelOptions options = WithDropout();
  const auto model = MakeLoadedModel(options, pool);
  const TrainBatch batch = RandomBatch(options.config, 2, 8, 8, 1);
  std::vector<float> losses(16, 5.0f);
  ASSERT_OK(model->ForwardBackward(batch, 0, losses));
  EXPECT_THAT(losses, ::testing::Each(0.0f));
  EXPECT_THAT(ReadAll(*model, TrainState::kGradients), ::testing::Each(0.0f));
}

TEST(TrainModel, BadBatchesAndDegreesAreNamed) {
  ThreadPool pool(1);
  TrainModelOptions options = {.config = SmallConfig()};
  const auto model = MakeLoadedModel(options, pool);
  TrainBatch batch = RandomBatch(options.config, 2, 8, 0, 1);
  batch.tokens[9] = 48;
  std::vector<float> losses(16);
  EXPECT_THAT(model->ForwardBackward(batch, 0, losses),
              testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                ::testing::HasSubstr("token id 48 at position 1 of sequence 1")));
  RunGrid(3, 1, [&](Communicator& tensor, Communicator&, int, int) {
    TrainModelOptions bad = {.config = SmallConfig()};
    bad.tensor = &tensor;
    EXPECT_FALSE(testing::MakeTestedModel(bad, pool).ok());
  });
}

}  // namespace
}  // namespace hanlin
