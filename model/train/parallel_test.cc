// What holds for a model in training over several ranks: tensor and data parallelism with ZeRO
// agree with one process, sums during the backward pass change no bit, a lost rank is named.
#include <mutex>

#include "absl/time/clock.h"
#include "model/train/background_sum.h"
#include "model/train/collectives.h"
#include "model/train/testing.h"

namespace hanlin {
namespace {

using testing::MakeLoadedModel;
using testing::RandomBatch;
using testing::ReadAll;
using testing::ReadSummedGradients;
using testing::RunGrid;
using testing::SmallConfig;
using testing::WeightedLoss;
using testing::WithDropout;

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
    const auto model = MakeLoadedModel(options, pool);
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
      const std::vector<float> gradient = ReadSummedGradients(*model);
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

// The gradients of three steps, of which rank d takes d + 1 micro-batches each, and the parameters
// after them; `overlapped` tells which ranks sum during the last micro-batch.
std::vector<std::vector<float>> ThreeSteps(int tp, const std::vector<bool>& overlapped,
                                           bool zero = true) {
  const int dp = static_cast<int>(overlapped.size());
  std::mutex mutex;
  std::vector<std::vector<float>> outcomes(tp * dp);
  RunGrid(tp, dp, [&](Communicator& tensor, Communicator& data, int t, int d) {
    ThreadPool pool(2);
    TrainModelOptions options = WithDropout();
    options.tensor = &tensor;
    options.data = &data;
    options.zero = zero;
    options.recompute = Recompute::kSelective;
    const size_t tensors = AllTensors(options.config).size();
    options.frozen.assign(tensors, false);
    for (const size_t frozen : {size_t{1}, size_t{4}, tensors - 1}) options.frozen[frozen] = true;
    const auto model = MakeLoadedModel(options, pool);
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
      const std::vector<float> gradient = ReadSummedGradients(*model);
      all.insert(all.end(), gradient.begin(), gradient.end());
      ASSERT_OK(model->Update(1e-3, 1.0f, step + 1));
    }
    const std::vector<float> parameters = ReadAll(*model, TrainState::kParameters);
    all.insert(all.end(), parameters.begin(), parameters.end());
    const std::lock_guard lock(mutex);
    outcomes[d * tp + t] = std::move(all);
  });
  return outcomes;
}

TEST(TrainModel, NeitherSummingDuringTheBackwardPassNorZeroChangesABit) {
  for (const int tp : {1, 2}) {
    const auto want = ThreeSteps(tp, {false, false, false});
    for (int t = 0; t < tp; ++t) EXPECT_EQ(want[t], want[tp + t]);
    EXPECT_EQ(ThreeSteps(tp, {true, false, true}), want) << tp;
    EXPECT_EQ(ThreeSteps(tp, {true, true, true}, /*zero=*/false), want) << tp;
  }
}

TEST(TrainModel, ASecondLastMicroBatchIsRefused) {
  ThreadPool pool(1);
  const auto model = MakeLoadedModel({.config = SmallConfig()}, pool);
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
    const auto model = MakeLoadedModel(options, pool);
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

TEST(ParameterLayout, CutsAreThePartsOfEveryStretch) {
  const ParameterLayout layout(SmallConfig(), 1);
  for (const int parts : {1, 2, 5}) {
    std::vector<int64_t> held(parts);
    for (int i = 0; i < layout.num_stretches(); ++i) {
      const ParameterRange stretch = layout.Stretch(i);
      const std::vector<int64_t> cuts = layout.Cuts(stretch, parts);
      ASSERT_EQ(cuts.size(), static_cast<size_t>(parts) + 1);
      EXPECT_EQ(cuts.front(), 0);
      EXPECT_EQ(cuts.back(), stretch.end - stretch.begin);
      for (int part = 0; part < parts; ++part) held[part] += cuts[part + 1] - cuts[part];
    }
    for (int part = 0; part < parts; ++part) {
      EXPECT_EQ(held[part], layout.PartBegin(part + 1, parts) - layout.PartBegin(part, parts));
    }
  }
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
