// The CPU model with operands rounded to bf16 beside the one in fp32: losses, gradients, a run of
// updates; bits that depend on nothing but the inputs.
#include <cmath>

#include "kernels/base/kernel_testing.h"
#include "model/train/testing.h"

namespace hanlin {
namespace {

using testing::RandomBatch;
using testing::ReadAll;
using testing::SmallConfig;

std::unique_ptr<TrainModel> Make(TrainModelOptions options, ComputeType operands,
                                 ThreadPool& pool) {
  options.operands = operands;
  auto model = MakeCpuTrainModel(options, pool).value();
  EXPECT_OK(LoadParameters(*Checkpoint::Random(options.config, 3), *model));
  return model;
}

double MeanLoss(const TrainBatch& batch, const std::vector<float>& losses) {
  double sum = 0;
  for (size_t i = 0; i < losses.size(); ++i) sum += double{batch.weights[i]} * losses[i];
  return sum;
}

class CpuBf16Test : public testing::KernelTest {};

TEST_P(CpuBf16Test, LossAndGradientAreCloseToThoseOfFp32) {
  ThreadPool pool(2);
  const TrainModelOptions options = {.config = SmallConfig()};
  const TrainBatch batch = RandomBatch(options.config, 3, 33, 4, 1);
  std::vector<float> losses[2], gradients[2];
  for (const ComputeType type : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    const auto model = Make(options, type, pool);
    const int i = type == ComputeType::kBFloat16;
    losses[i].resize(batch.tokens.size());
    ASSERT_OK(model->ForwardBackward(batch, 0, losses[i]));
    gradients[i] = ReadAll(*model, TrainState::kGradients);
  }
  EXPECT_NEAR(MeanLoss(batch, losses[1]), MeanLoss(batch, losses[0]), 1e-2);
  double product = 0, squares[2] = {};
  for (size_t i = 0; i < gradients[0].size(); ++i) {
    product += double{gradients[0][i]} * gradients[1][i];
    for (int j = 0; j < 2; ++j) squares[j] += double{gradients[j][i]} * gradients[j][i];
  }
  EXPECT_GT(product / std::sqrt(squares[0] * squares[1]), 0.999);
  EXPECT_NE(gradients[0], gradients[1]);
}

// Losses and parameters of `steps` updates with dropout.
struct Outcome {
  std::vector<double> losses;
  std::vector<float> parameters;
};
Outcome Train(ComputeType type, Recompute recompute, int threads, int steps) {
  ThreadPool pool(threads);
  TrainModelOptions options = {.config = SmallConfig(), .recompute = recompute};
  options.dropout = {0.1f, 0.1f, 0.1f};
  const auto model = Make(options, type, pool);
  Outcome outcome;
  for (int step = 0; step < steps; ++step) {
    const TrainBatch batch = RandomBatch(options.config, 3, 33, 4, step % 2);
    std::vector<float> losses(batch.tokens.size());
    EXPECT_OK(model->ForwardBackward(batch, step, losses));
    outcome.losses.push_back(MeanLoss(batch, losses));
    EXPECT_OK(model->Update(3e-3, 1, step + 1));
    model->ZeroGradients();
  }
  outcome.parameters = ReadAll(*model, TrainState::kParameters);
  return outcome;
}

TEST_P(CpuBf16Test, ARunFollowsFp32) {
  const Outcome want = Train(ComputeType::kFloat32, Recompute::kNone, 2, 40);
  const Outcome got = Train(ComputeType::kBFloat16, Recompute::kNone, 2, 40);
  for (size_t i = 0; i < want.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], want.losses[i], 0.03) << "step " << i;
  }
  EXPECT_LT(got.losses.back(), 0.8 * got.losses.front());
}

TEST_P(CpuBf16Test, RecomputationThreadsAndRerunsChangeNoBit) {
  const Outcome want = Train(ComputeType::kBFloat16, Recompute::kNone, 1, 3);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    const Outcome got = Train(ComputeType::kBFloat16, recompute, 3, 3);
    EXPECT_EQ(got.losses, want.losses);
    EXPECT_EQ(got.parameters, want.parameters);
  }
}

INSTANTIATE_KERNEL_TEST(CpuBf16Test);

}  // namespace
}  // namespace hanlin
