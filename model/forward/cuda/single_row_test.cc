// A sequence that decodes alone takes kernels of its own (decode blocks or the decode step): its
// logits against those of the batch-invariant mode, which has one path for everything.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <ostream>
#include <vector>

#include "common/testing/testing.h"
#include "common/threading/thread_pool.h"
#include "model/checkpoint/checkpoint.h"
#include "model/forward/cuda/cuda_model.h"

namespace hanlin {
namespace {

constexpr int32_t kVocabulary = 512;
constexpr int32_t kBlocks = 8;  // of 16 tokens
constexpr int32_t kPrompt = 29;
constexpr int32_t kSteps = 24;

struct Size {
  int32_t hidden, heads;
};

std::ostream& operator<<(std::ostream& out, const Size& size) {
  return out << "Width" << size.hidden;
}

class SingleRowTest : public ::testing::TestWithParam<Size> {
 protected:
  void SetUp() override {
    const auto device = OpenCudaDevice(0);
    if (!device.ok()) GTEST_SKIP() << "needs a GPU: " << device.status();
    if (!device->hopper) GTEST_SKIP() << "not for the plain path";
  }

  std::unique_ptr<CudaGptModel> Load(bool batch_invariant) {
    const auto [hidden, heads] = GetParam();
    const ModelConfig config = {.name = "random",
                                .vocab_size = kVocabulary,
                                .hidden_size = hidden,
                                .num_layers = 2,
                                .num_heads = heads,
                                .head_dim = hidden / heads,
                                .ffn_size = 4 * hidden,
                                .max_positions = 2048};
    const auto checkpoint = Checkpoint::Random(config);
    ThreadPool pool(2);
    auto model = CudaGptModel::Create({.checkpoint = checkpoint.get(),
                                       .pool = &pool,
                                       .num_kv_blocks = kBlocks,
                                       .max_sequences = 4,
                                       .max_tokens_per_pass = 64,
                                       .batch_invariant = batch_invariant});
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : nullptr;
  }

  // Logits of the last of `tokens`, which follow `context` tokens of the only sequence.
  static std::vector<float> Step(CudaGptModel* model, const std::vector<int32_t>& tokens,
                                 int32_t context) {
    std::vector<int32_t> table(kBlocks);
    std::iota(table.rbegin(), table.rend(), 0);
    const auto count = static_cast<int32_t>(tokens.size());
    const std::vector<StepSequence> sequences = {{0, count, context, 0, kBlocks}};
    const std::vector<int32_t> rows = {count - 1};
    std::vector<float> logits(kVocabulary);
    EXPECT_OK(model->Run({tokens, sequences, table, rows}, logits));
    return logits;
  }
};
INSTANTIATE_TEST_SUITE_P(Sizes, SingleRowTest,
                         ::testing::Values(Size{768, 12}, Size{2048, 32}, Size{2560, 32}),
                         ::testing::PrintToStringParamName());

TEST_P(SingleRowTest, LogitsAreNearThoseOfTheBatchInvariantMode) {
  const auto alone = Load(false), invariant = Load(true);
  ASSERT_TRUE(alone != nullptr && invariant != nullptr);
  std::vector<int32_t> tokens(kPrompt);
  for (int i = 0; i < kPrompt; ++i) tokens[i] = (37 * i + 5) % kVocabulary;
  int32_t context = 0;
  for (int step = 0; step < kSteps; ++step) {
    SCOPED_TRACE(step);
    const std::vector<float> got = Step(alone.get(), tokens, context);
    const std::vector<float> want = Step(invariant.get(), tokens, context);
    double error = 0, power = 0;
    for (int i = 0; i < kVocabulary; ++i) {
      error += std::pow(got[i] - want[i], 2);
      power += std::pow(want[i], 2);
    }
    ASSERT_GT(power, 0);
    ASSERT_LT(std::sqrt(error / power), 0.02);
    context += static_cast<int32_t>(tokens.size());
    tokens = {(101 * step + 7) % kVocabulary};
  }
}

}  // namespace
}  // namespace hanlin
