// What holds for any model in training: gradients by finite differences, recomputation, reruns,
// tensor and data parallelism with ZeRO, sums during the backward pass, packed documents, frozen
// tensors, masked batches.
#include "model/train/train_model.h"

#include <cmath>
#include <mutex>

#include "absl/time/clock.h"
#include "model/train/background_sum.h"
#include "model/train/collectives.h"
#include "model/train/testing.h"

namespace hanlin {
namespace {

using testing::RandomBatch;
using testing::ReadAll;
using testing::RunGrid;
using testing::SmallConfig;

std::unique_ptr<TrainModel> Make(const TrainModelOptions& options, ThreadPool& pool) {
  auto model = testing::MakeTestedModel(options, pool).value();
  EXPECT_OK(LoadParameters(*Checkpoint::Random(options.config, 3), *model));
  return model;
}

double WeightedLoss(const TrainBatch& batch, const std::vector<float>& losses) {
  double sum = 0;
  for (size_t i = 0; i < losses.size(); ++i) sum += double{batch.weights[i]} * losses[i];
  return sum;
}

struct Outcome {
  std::vector<float> losses, gradients, parameters;
};

// Two optimizer steps of two micro-batches with dropout.
Outcome TwoSteps(TrainModelOptions options, int threads) {
  ThreadPool pool(threads);
  options.weight_decay.assign(AllTensors(options.config).size(), 0.01f);
  const auto model = Make(options, pool);
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

TrainModelOptions WithDropout() {
  TrainModelOptions options = {.config = SmallConfig()};
  options.dropout = {0.1f, 0.2f, 0.15f};
  options.seed = 77;
  return options;
}

TEST(TrainModel, GradientsMatchFiniteDifferencesAlongRandomDirections) {
  ThreadPool pool(2);
  for (const GeluKind gelu : {GeluKind::kTanh, GeluKind::kErf}) {
    TrainModelOptions options = {.config = SmallConfig()};
    options.config.gelu = gelu;
    const auto model = Make(options, pool);
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

// Rows [first, first + count) of a batch.
TrainBatch Part(const TrainBatch& batch, int64_t first, int64_t count) {
  const auto cut = [&](auto values) {
    return decltype(values)(values.begin() + first * batch.length,
                            values.begin() + (first + count) * batch.length);
  };
  TrainBatch part = {.sequences = count, .length = batch.length};
  part.tokens = cut(batch.tokens);
  part.labels = cut(batch.labels);
  part.positions = cut(batch.positions);
  part.weights = cut(batch.weights);
  part.first_row = static_cast<uint32_t>(first * batch.length);
  return part;
}

// What a run over a grid of ranks comes to: the whole model's first gradient in the layout of one
// rank, and of every step the norm and the loss.
struct GridOutcome {
  std::vector<float> gradient;
  std::vector<double> norms, losses;
};

GridOutcome RunOnGrid(int tp, int dp, bool zero) {
  const ModelConfig config = SmallConfig();
  const ParameterLayout whole(config, 1);
  std::mutex mutex;
  GridOutcome outcome;
  outcome.gradient.resize(whole.size());
  RunGrid(tp, dp, [&](Communicator& tensor, Communicator& data, int t, int d) {
    ThreadPool pool(1);
    TrainModelOptions options = WithDropout();
    options.tensor = &tensor;
    options.data = &data;
    options.zero = zero;
    options.weight_decay.assign(AllTensors(config).size(), 0.01f);
    const auto model = Make(options, pool);
    for (uint32_t step = 0; step < 4; ++step) {
      const TrainBatch batch = Part(RandomBatch(config, 4, 20, 4, step), 4 / dp * d, 4 / dp);
      std::vector<float> losses(batch.tokens.size());
      model->ZeroGradients();
      model->ReduceInNextBackward();
      ASSERT_OK(model->ForwardBackward(batch, step, losses));
      ASSERT_OK(model->ReduceGradients());
      double loss = WeightedLoss(batch, losses);
      ASSERT_OK(SumOverRanks(&data, {&loss, 1}));
      ASSERT_OK_AND_ASSIGN(const double norm, model->GradientNorm());
      const std::vector<float> gradient = ReadAll(*model, TrainState::kGradients);
      ASSERT_OK(model->Update(1e-3, 1.0f, step + 1));
      const std::lock_guard lock(mutex);
      for (const ParameterSlot& slot : model->layout().slots()) {
        if (step > 0) break;
        PlaceSlice(config, slot.id.role, t, tp, gradient.data() + slot.offset,
                   outcome.gradient.data() + whole.Of(slot.id).offset);
      }
      if (t > 0 || d > 0) continue;
      outcome.norms.push_back(norm);
      outcome.losses.push_back(loss);
    }
  });
  return outcome;
}

TEST(TrainModel, TensorAndDataParallelRanksAgreeWithOneProcess) {
  const ParameterLayout layout(SmallConfig(), 1);
  const GridOutcome want = RunOnGrid(1, 1, true);
  struct Grid {
    int tp, dp;
    bool zero;
  };
  for (const Grid grid :
       {Grid{2, 1, true}, {4, 1, true}, {1, 2, true}, {1, 2, false}, {2, 2, true}, {1, 4, true}}) {
    const GridOutcome got = RunOnGrid(grid.tp, grid.dp, grid.zero);
    const std::string what = fmt::format("tp {} dp {} zero {}", grid.tp, grid.dp, grid.zero);
    for (size_t i = 0; i < want.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], want.losses[i], 1e-5 * want.losses[i]) << what << " step " << i;
      EXPECT_NEAR(got.norms[i], want.norms[i], 1e-5 * want.norms[i]) << what << " step " << i;
    }
    for (const ParameterSlot& slot : layout.slots()) {
      double largest = 1e-3;
      for (int64_t i = slot.offset; i < slot.offset + slot.shape.size(); ++i) {
        largest = std::max(largest, std::abs(double{want.gradient[i]}));
      }
      for (int64_t i = slot.offset; i < slot.offset + slot.shape.size(); ++i) {
        ASSERT_NEAR(got.gradient[i], want.gradient[i], 1e-5 * largest)
            << what << " " << ToString(slot.id);
      }
    }
  }
}

// The gradients of three steps, of which rank d takes d + 1 micro-batches each; `overlapped` tells
// which ranks sum during the last one.
std::vector<std::vector<float>> GradientsOf(int tp, const std::vector<bool>& overlapped) {
  const int dp = static_cast<int>(overlapped.size());
  std::mutex mutex;
  std::vector<std::vector<float>> gradients(tp * dp);
  RunGrid(tp, dp, [&](Communicator& tensor, Communicator& data, int t, int d) {
    ThreadPool pool(2);
    TrainModelOptions options = WithDropout();
    options.tensor = &tensor;
    options.data = &data;
    options.recompute = Recompute::kSelective;
    const size_t tensors = AllTensors(options.config).size();
    options.frozen.assign(tensors, false);
    for (const size_t frozen : {size_t{1}, size_t{4}, tensors - 1}) options.frozen[frozen] = true;
    const auto model = Make(options, pool);
    std::vector<float> all;
    for (int step = 0; step < 3; ++step) {
      model->ZeroGradients();
      for (int i = 0; i <= d; ++i) {
        const TrainBatch batch = RandomBatch(options.config, 2, 20, 4, 100 * step + 10 * d + i);
        std::vector<float> losses(batch.tokens.size());
        if (i == d && overlapped[d]) model->ReduceInNextBackward();
        ASSERT_OK(model->ForwardBackward(batch, step, losses));
      }
      ASSERT_OK(model->ReduceGradients());
      const std::vector<float> gradient = ReadAll(*model, TrainState::kGradients);
      all.insert(all.end(), gradient.begin(), gradient.end());
      ASSERT_OK(model->Update(1e-3, 1.0f, step + 1));
    }
    const std::lock_guard lock(mutex);
    gradients[d * tp + t] = std::move(all);
  });
  return gradients;
}

TEST(TrainModel, SummingDuringTheBackwardPassChangesNoBit) {
  for (const int tp : {1, 2}) {
    const auto want = GradientsOf(tp, {false, false, false});
    for (int t = 0; t < tp; ++t) EXPECT_EQ(want[t], want[tp + t]);
    EXPECT_EQ(GradientsOf(tp, {true, true, true}), want) << tp;
    EXPECT_EQ(GradientsOf(tp, {true, false, true}), want) << tp;
  }
}

TEST(TrainModel, ASecondLastMicroBatchIsRefused) {
  ThreadPool pool(1);
  const auto model = Make({.config = SmallConfig()}, pool);
  const TrainBatch batch = RandomBatch(SmallConfig(), 1, 8, 0, 1);
  std::vector<float> losses(8);
  model->ReduceInNextBackward();
  ASSERT_OK(model->ForwardBackward(batch, 0, losses));
  EXPECT_EQ(model->ForwardBackward(batch, 0, losses).code(), absl::StatusCode::kInternal);
  ASSERT_OK(model->ReduceGradients());
  EXPECT_OK(model->ForwardBackward(batch, 0, losses));
}

// A rank that ends while the others sum: in each of them the step fails with its number, at once.
TEST(TrainModel, ARankThatIsLostDuringTheSumIsNamed) {
  const absl::Time begin = absl::Now();
  RunGrid(2, 3, [&](Communicator& tensor, Communicator& data, int, int d) {
    ThreadPool pool(1);
    TrainModelOptions options = WithDropout();
    options.tensor = &tensor;
    options.data = &data;
    const auto model = Make(options, pool);
    if (d == 1) return;
    const TrainBatch batch = RandomBatch(options.config, 2, 20, 4, d);
    std::vector<float> losses(batch.tokens.size());
    model->ReduceInNextBackward();
    absl::Status status = model->ForwardBackward(batch, 0, losses);
    if (status.ok()) status = model->ReduceGradients();
    EXPECT_THAT(status, testing::StatusIs(absl::StatusCode::kUnavailable,
                                          ::testing::HasSubstr("rank 1 of 3 is gone")));
    // What the trainer does, for those who do not see the lost rank themselves.
    tensor.Abort(Message(status));
    data.Abort(Message(status));
  });
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
}

// As when a rank's tensor group has failed while a sum waits for another replica.
TEST(BackgroundSum, EndsItsGroupWhenItEndsWithWorkLeft) {
  const absl::Time begin = absl::Now();
  testing::RunRanks(2, [](Communicator& data) {
    std::vector<float> values(100, 1.0f);
    if (data.rank() == 0) {
      BackgroundSum sum(&data);
      ASSERT_OK(sum.Add(values));
      return;
    }
    while (data.Check().ok()) absl::SleepFor(absl::Milliseconds(5));
    BackgroundSum sum(&data);
    sum.Add(values).IgnoreError();
    EXPECT_THAT(sum.Wait(), testing::StatusIs(absl::StatusCode::kUnavailable,
                                              ::testing::HasSubstr("rank 0 of 2")));
  });
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
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
      const auto model = Make(options, pool);
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
    const auto model = Make(options, pool);
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
  const auto model = Make(options, pool);
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
  const auto model = Make(options, pool);
  const TrainBatch batch = RandomBatch(options.config, 2, 8, 8, 1);
  std::vector<float> losses(16, 5.0f);
  ASSERT_OK(model->ForwardBackward(batch, 0, losses));
  EXPECT_THAT(losses, ::testing::Each(0.0f));
  EXPECT_THAT(ReadAll(*model, TrainState::kGradients), ::testing::Each(0.0f));
}

TEST(TrainModel, BadBatchesAndDegreesAreNamed) {
  ThreadPool pool(1);
  TrainModelOptions options = {.config = SmallConfig()};
  const auto model = Make(options, pool);
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

TEST(Collectives, DoublesTravelExactly) {
  testing::RunRanks(3, [](Communicator& c) {
    double values[] = {0.1 * (c.rank() + 1), 1e30};
    ASSERT_OK(SumOverRanks(&c, values));
    EXPECT_EQ(values[0], (0.1 * 1 + 0.1 * 2) + 0.1 * 3);
    EXPECT_EQ(values[1], 1e30 + 1e30 + 1e30);
  });
}

}  // namespace
}  // namespace hanlin
