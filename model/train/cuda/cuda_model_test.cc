// What bf16 on a GPU adds to the tests of model/train: near to fp32, the same bits on a rerun,
// with recomputation and over several ranks, the master weights as they were written, and memory as
// planned.
#include "model/train/cuda/cuda_model.h"

#include <cmath>
#include <mutex>
#include <tuple>

#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"
#include "model/comm/nccl/nccl_communicator.h"
#include "model/comm/nccl/testing.h"
#include "model/train/cuda/memory.h"
#include "model/train/testing.h"

namespace hanlin {
namespace {

using testing::RandomBatch;
using testing::ReadAll;
using testing::SmallConfig;

// Heads of the tensor cores' attention.
ModelConfig MediumConfig(int head_dim) {
  ModelConfig config = SmallConfig();
  config.vocab_size = 200;
  config.num_heads = 2;
  config.head_dim = head_dim;
  config.hidden_size = 2 * head_dim;
  config.ffn_size = 8 * head_dim;
  config.max_positions = 160;
  return config;
}

std::unique_ptr<TrainModel> Load(absl::StatusOr<std::unique_ptr<TrainModel>> model) {
  EXPECT_OK(model.status());
  EXPECT_OK(LoadParameters(*Checkpoint::Random((*model)->options().config, 3), **model));
  return *std::move(model);
}

struct Outcome {
  std::vector<float> losses, gradients, parameters;
};

// Three steps of one micro-batch each; the gradients are the first step's.
Outcome ThreeSteps(TrainModel& model, int64_t masked, bool overlap = false, uint32_t seed = 0) {
  Outcome outcome;
  for (uint32_t step = 0; step < 3; ++step) {
    const TrainBatch batch = RandomBatch(model.options().config, 3, 150, masked, seed + step);
    std::vector<float> losses(batch.tokens.size());
    model.ZeroGradients();
    if (overlap) model.ReduceInNextBackward();
    EXPECT_OK(model.ForwardBackward(batch, step, losses));
    EXPECT_OK(model.ReduceGradients());
    outcome.losses.insert(outcome.losses.end(), losses.begin(), losses.end());
    if (step == 0) outcome.gradients = testing::ReadSummedGradients(model);
    EXPECT_OK(model.Update(1e-3, 1.0f, step + 1));
  }
  outcome.parameters = ReadAll(model, TrainState::kParameters);
  return outcome;
}

double Cosine(const float* a, const float* b, int64_t count) {
  double product = 0, squares_a = 0, squares_b = 0;
  for (int64_t i = 0; i < count; ++i) {
    product += double{a[i]} * b[i];
    squares_a += double{a[i]} * a[i];
    squares_b += double{b[i]} * b[i];
  }
  return product / std::sqrt(squares_a * squares_b);
}

TrainModelOptions WithDropout(const ModelConfig& config) {
  TrainModelOptions options = {.config = config};
  options.dropout = {0.1f, 0.1f, 0.1f};
  options.seed = 5;
  options.weight_decay.assign(AllTensors(config).size(), 0.01f);
  return options;
}

class CudaTrainModelTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && !device_.hopper) GTEST_SKIP() << "needs compute capability 9.0";
  }
};

TEST_F(CudaTrainModelTest, Bf16IsNearToTheCpuInFp32) {
  ThreadPool pool(2);
  for (const int head_dim : {16, 64, 80, 128}) {
    for (const int64_t masked : {0, 40}) {
      ModelConfig config = MediumConfig(head_dim);
      // The tanh form is an epilogue of a product in the backward pass, the erf form a kernel.
      config.gelu = head_dim == 80 ? GeluKind::kErf : GeluKind::kTanh;
      const TrainModelOptions options = WithDropout(config);
      const auto on_cpu = Load(MakeCpuTrainModel(options, pool));
      const auto on_gpu = Load(MakeCudaTrainModel(options, {}));
      const Outcome want = ThreeSteps(*on_cpu, masked);
      const Outcome got = ThreeSteps(*on_gpu, masked);
      for (size_t i = 0; i < want.losses.size(); ++i) {
        ASSERT_NEAR(got.losses[i], want.losses[i], 0.05) << "heads of " << head_dim << ", " << i;
      }
      for (const ParameterSlot& slot : on_cpu->layout().slots()) {
        // The gradient of keys' biases is zero but for rounding.
        if (slot.id.role == TensorRole::kQkvBias) continue;
        EXPECT_GT(Cosine(got.gradients.data() + slot.offset, want.gradients.data() + slot.offset,
                         slot.shape.size()),
                  0.995)
            << "heads of " << head_dim << ", " << ToString(slot.id);
      }
    }
  }
}

// With dropout the sum of a half layer is the norm's part, without it the product's.
TEST_F(CudaTrainModelTest, RerunsAndRecomputationChangeNoBitOfBf16) {
  for (const auto& [head_dim, gelu, drops] : {std::tuple(64, GeluKind::kTanh, true),
                                              {64, GeluKind::kTanh, false},
                                              {80, GeluKind::kErf, true},
                                              {80, GeluKind::kErf, false}}) {
    TrainModelOptions options = WithDropout(MediumConfig(head_dim));
    options.config.gelu = gelu;
    if (!drops) options.dropout = {};
    const Outcome want = ThreeSteps(*Load(MakeCudaTrainModel(options, {})), 40);
    for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
      options.recompute = recompute;
      // The tanh form with selective recomputation has bits of its own: below.
      if (recompute == Recompute::kSelective && gelu == GeluKind::kTanh) continue;
      SCOPED_TRACE(::testing::Message() << "heads of " << head_dim << ", dropout " << drops
                                        << ", recomputation " << static_cast<int>(recompute));
      const Outcome got = ThreeSteps(*Load(MakeCudaTrainModel(options, {})), 40);
      EXPECT_EQ(got.losses, want.losses);
      EXPECT_EQ(got.gradients, want.gradients);
      EXPECT_EQ(got.parameters, want.parameters);
    }
  }
}

// All that several replicas do, over NCCL, by one.
TEST_F(CudaTrainModelTest, AGroupOfOneOverNcclChangesNoBit) {
  const auto nccl = MakeNcclCommunicator({});
  if (absl::IsFailedPrecondition(nccl.status())) GTEST_SKIP() << nccl.status();
  ASSERT_OK(nccl.status());
  for (const ComputeType type : {ComputeType::kBFloat16, ComputeType::kFloat32}) {
    TrainModelOptions options = WithDropout(MediumConfig(64));
    options.frozen.assign(AllTensors(options.config).size(), false);
    options.frozen[1] = options.frozen[5] = true;
    const Outcome want = ThreeSteps(*Load(MakeCudaTrainModel(options, {.type = type})), 40);
    for (const bool overlap : {false, true}) {
      const auto model = Load(MakeCudaTrainModel(options, {.type = type, .data = nccl->get()}));
      const Outcome got = ThreeSteps(*model, 40, overlap);
      EXPECT_EQ(got.losses, want.losses);
      EXPECT_EQ(got.gradients, want.gradients);
      EXPECT_EQ(got.parameters, want.parameters);
    }
  }
  EXPECT_OK((*nccl)->Check());
}

// What rank 0 of a grid comes to; all replicas have its gradients and parameters.
Outcome OnGrid(int tp, int dp, bool overlap, bool zero = true) {
  std::mutex mutex;
  std::vector<Outcome> outcomes(tp * dp);
  testing::RunGrid(tp, dp, [&](Communicator& tensor, Communicator& data, int t, int d) {
    ModelConfig config = MediumConfig(64);
    config.vocab_size = 208;  // a multiple of 8 on each rank
    TrainModelOptions options = WithDropout(config);
    options.tensor = &tensor;
    options.data = &data;
    options.zero = zero;
    testing::HostCudaCommunicator on_tensor(&tensor), on_data(&data);
    const auto model = Load(MakeCudaTrainModel(
        options, {.tensor = tp > 1 ? &on_tensor : nullptr, .data = dp > 1 ? &on_data : nullptr}));
    Outcome outcome = ThreeSteps(*model, 40, overlap, 10 * d);
    const std::lock_guard lock(mutex);
    outcomes[d * tp + t] = std::move(outcome);
  });
  for (int d = 1; d < dp; ++d) {
    EXPECT_EQ(outcomes[d * tp].gradients, outcomes[0].gradients);
    EXPECT_EQ(outcomes[d * tp].parameters, outcomes[0].parameters);
  }
  return outcomes[0];
}

TEST_F(CudaTrainModelTest, NeitherSummingDuringTheBackwardPassNorZeroChangesABitOfBf16) {
  for (const auto& [tp, dp] : {std::pair(1, 2), {2, 2}, {1, 3}}) {
    const Outcome want = OnGrid(tp, dp, false);
    for (const bool zero : {true, false}) {
      const Outcome got = OnGrid(tp, dp, true, zero);
      EXPECT_EQ(got.losses, want.losses) << tp << "x" << dp;
      EXPECT_EQ(got.gradients, want.gradients) << tp << "x" << dp;
      EXPECT_EQ(got.parameters, want.parameters) << tp << "x" << dp;
    }
  }
}

// There GELU is taken of the rounded sum: always the same numbers, and those of the other modes but
// for a rounding.
TEST_F(CudaTrainModelTest, SelectiveRecomputationOfTanhRepeatsItsBitsAndIsNear) {
  TrainModelOptions options = WithDropout(MediumConfig(64));
  const Outcome want = ThreeSteps(*Load(MakeCudaTrainModel(options, {})), 40);
  options.recompute = Recompute::kSelective;
  const Outcome got = ThreeSteps(*Load(MakeCudaTrainModel(options, {})), 40);
  const Outcome again = ThreeSteps(*Load(MakeCudaTrainModel(options, {})), 40);
  EXPECT_EQ(again.losses, got.losses);
  EXPECT_EQ(again.gradients, got.gradients);
  EXPECT_EQ(again.parameters, got.parameters);
  EXPECT_LE(testing::RelativeError(got.gradients, want.gradients), 0.05);
}

// Gradients of batches that follow one another without being cleared in between.
std::vector<float> GradientsOf(TrainModel& model, const std::vector<TrainBatch>& batches) {
  model.ZeroGradients();
  for (const TrainBatch& batch : batches) {
    std::vector<float> losses(batch.tokens.size());
    EXPECT_OK(model.ForwardBackward(batch, 0, losses));
  }
  return ReadAll(model, TrainState::kGradients);
}

TEST_F(CudaTrainModelTest, GradientsOfMicroBatchesAddUp) {
  const ModelConfig config = MediumConfig(64);
  const auto model = Load(MakeCudaTrainModel({.config = config}, {}));
  const TrainBatch a = RandomBatch(config, 3, 150, 0, 1), b = RandomBatch(config, 2, 150, 40, 2);
  const TrainBatch masked = RandomBatch(config, 3, 150, 150, 3);
  const std::vector<float> of_a = GradientsOf(*model, {a}), of_b = GradientsOf(*model, {b});
  std::vector<float> sum(of_a.size());
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = of_a[i] + of_b[i];
  EXPECT_LE(testing::RelativeError(GradientsOf(*model, {a, b}), sum), 1e-5);
  // A micro-batch of which no position counts adds nothing, first or last.
  EXPECT_EQ(GradientsOf(*model, {masked, b}), of_b);
  EXPECT_EQ(GradientsOf(*model, {b, masked}), of_b);
  EXPECT_EQ(GradientsOf(*model, {masked}), std::vector<float>(sum.size()));
  EXPECT_EQ(GradientsOf(*model, {a}), of_a) << "once more";
}

// The host is ahead of the device: a batch must not reach the one before it.
TEST_F(CudaTrainModelTest, BatchesThatFollowAtOnceDoNotMeet) {
  const ModelConfig config = MediumConfig(64);
  const auto model = Load(MakeCudaTrainModel({.config = config}, {}));
  std::vector<float> got, want;
  for (const bool waits : {true, false}) {
    model->ZeroGradients();
    std::vector<float>& all = waits ? want : got;
    for (uint32_t i = 0; i < 12; ++i) {
      const TrainBatch batch = RandomBatch(config, 1 + i % 3, 50 + 40 * (i % 2), 13 * (i % 4), i);
      std::vector<float> losses(batch.tokens.size());
      ASSERT_OK(model->ForwardBackward(batch, i, losses));
      all.insert(all.end(), losses.begin(), losses.end());
      if (waits) ReadAll(*model, TrainState::kGradients);
    }
    const std::vector<float> gradients = ReadAll(*model, TrainState::kGradients);
    all.insert(all.end(), gradients.begin(), gradients.end());
  }
  EXPECT_EQ(got, want);
}

TEST_F(CudaTrainModelTest, ZeroedGradientsAreZeroForEveryReader) {
  const ModelConfig config = MediumConfig(64);
  const auto model = Load(MakeCudaTrainModel({.config = config}, {}));
  const std::vector<TrainBatch> batches = {RandomBatch(config, 3, 150, 0, 1)};
  const std::vector<float> gradients = GradientsOf(*model, batches);
  const std::vector<float> zeros(gradients.size());
  EXPECT_EQ(GradientsOf(*model, {}), zeros);

  GradientsOf(*model, batches);
  model->ZeroGradients();
  const auto norm = model->GradientNorm();
  ASSERT_OK(norm.status());
  EXPECT_EQ(*norm, 0);

  GradientsOf(*model, batches);
  model->ZeroGradients();
  const std::vector<float> before = ReadAll(*model, TrainState::kParameters);
  ASSERT_OK(model->Update(1e-3, 1.0f, 1));
  EXPECT_EQ(ReadAll(*model, TrainState::kParameters), before);

  // What is written stays, beside zeros.
  GradientsOf(*model, batches);
  model->ZeroGradients();
  std::vector<float> want = zeros;
  want[7] = 3;
  ASSERT_OK(model->WriteState(TrainState::kGradients, 7, std::span(want).subspan(7, 1)));
  EXPECT_EQ(ReadAll(*model, TrainState::kGradients), want);
}

TEST_F(CudaTrainModelTest, MasterWeightsKeepEveryBit) {
  const auto model = Load(MakeCudaTrainModel({.config = SmallConfig()}, {}));
  std::vector<float> values(model->layout().size());
  uint32_t bits = 1;
  for (float& value : values) {
    bits = bits * 1664525u + 1013904223u;
    value = static_cast<float>(bits) * 0x1p-31f - 1.0f;
  }
  ASSERT_OK(model->WriteState(TrainState::kParameters, 0, values));
  EXPECT_EQ(ReadAll(*model, TrainState::kParameters), values);
}

TEST_F(CudaTrainModelTest, TakesTheMemoryThatWasPlanned) {
  TrainModelOptions options = {.config = MediumConfig(64)};
  options.config.num_layers = 6;
  options.config.vocab_size = 40000;
  options.recompute = Recompute::kFull;
  size_t before = 0, after = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&before, &total), cudaSuccess);
  const auto model = Load(MakeCudaTrainModel(options, {}));
  const TrainBatch batch = RandomBatch(options.config, 64, 150, 0, 1);
  std::vector<float> losses(batch.tokens.size());
  ASSERT_OK(model->ForwardBackward(batch, 0, losses));
  ASSERT_EQ(cudaMemGetInfo(&after, &total), cudaSuccess);
  const CudaTrainMemory plan =
      PlanCudaTrainMemory(options, ComputeType::kBFloat16, batch.sequences, batch.length);
  // The driver rounds allocations up to 2 MiB and loads code.
  constexpr double kSlack = 300e6;
  EXPECT_NEAR(static_cast<double>(before - after), static_cast<double>(plan.total()), kSlack);
}

// 16 bytes a parameter and what one layer needs: what the largest model that is trained on one
// device of 46 GB leaves room for.
TEST(CudaTrainMemoryTest, LargestModelWithFullRecomputation) {
  TrainModelOptions options = {.config = Preset("2.7B").value()};
  options.recompute = Recompute::kFull;
  const CudaTrainMemory plan = PlanCudaTrainMemory(options, ComputeType::kBFloat16, 4, 1024);
  const ParameterLayout layout(options.config, 1);
  EXPECT_EQ(plan.master + plan.gradients + plan.moments, 16 * static_cast<uint64_t>(layout.size()));
  EXPECT_LT(plan.total(), 45'000'000'000);
  options.recompute = Recompute::kNone;
  EXPECT_GT(PlanCudaTrainMemory(options, ComputeType::kBFloat16, 4, 1024).activations,
            4 * plan.activations);
}

}  // namespace
}  // namespace hanlin
