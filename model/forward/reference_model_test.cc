// The trained default model against what PyTorch computed with it: greedy continuations in fp32,
// and in bf16 the choices and log-probabilities along the stored ids.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/testing/testing.h"
#include "model/config/config.h"
#include "model/forward/testing.h"

namespace hanlin {
namespace {

using testing::Device;
using testing::GroupOptions;
using testing::Ids;
using testing::StepDriver;
using testing::WithGroup;

// Bars of bf16: a choice may differ only where the reference itself hardly prefers one, and a
// log-probability by little.
constexpr double kDecisiveMargin = 0.03;
constexpr double kLogprobTolerance = 0.1;

nlohmann::json StoredContinuations() {
  const auto text = ReadFile(testing::GoldensDirectory() + "/refmodel/greedy_shared.json");
  return nlohmann::json::parse(text.value(), nullptr, false);
}

// Device and degree.
class ReferenceModelTest : public ::testing::TestWithParam<GroupOptions> {
 protected:
  void SetUp() override {
    if (const std::string why = testing::WhyNot(GetParam()); !why.empty()) {
      GTEST_SKIP() << why;
    }
    ASSERT_OK_AND_ASSIGN(model_, DefaultModelDirectory());
  }
  std::string model_;
};
INSTANTIATE_TEST_SUITE_P(
    Devices, ReferenceModelTest,
    ::testing::Values(GroupOptions{.tp_size = 1}, GroupOptions{.tp_size = 2},
                      GroupOptions{.tp_size = 4}, GroupOptions{.device = Device::kCuda},
                      GroupOptions{.device = Device::kCudaSharded, .batch_invariant = false},
                      GroupOptions{.device = Device::kCuda, .batch_invariant = false}));

TEST_P(ReferenceModelTest, GreedyContinuationsInFp32AreExact) {
  std::vector<Ids> prompts, want;
  for (const auto& item : StoredContinuations()) {
    prompts.push_back(item["ids"].get<Ids>());
    want.push_back(prompts.back());
    const Ids continuation = item["greedy"].get<Ids>();
    want.back().insert(want.back().end(), continuation.begin(), continuation.end());
  }
  std::vector<int> lengths;
  lengths.reserve(prompts.size());
  for (const Ids& prompt : prompts) lengths.push_back(static_cast<int>(prompt.size()) + 64);
  WithGroup(model_, GetParam(), [&](TpGroup& group, const ForwardModel& model) {
    StepDriver driver(&group, model, 1);
    EXPECT_EQ(testing::Greedy(&driver, prompts, lengths, model.config().end_token_ids), want);
  });
}

double LogSumExp(std::span<const float> logits) {
  const float top = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - top);
  return top + std::log(sum);
}

// One row of logits against the stored top-5 of its step: {[id, log-probability], …}, best first.
void ExpectNearStep(std::span<const float> logits, const nlohmann::json& top) {
  const double margin = top[0][1].get<double>() - top[1][1].get<double>();
  const int32_t choice = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
  if (margin >= kDecisiveMargin) {
    EXPECT_EQ(choice, top[0][0].get<int32_t>()) << "margin " << margin;
  }
  const double normalizer = LogSumExp(logits);
  for (const auto& entry : top) {
    EXPECT_NEAR(logits[entry[0].get<int32_t>()] - normalizer, entry[1].get<double>(),
                kLogprobTolerance);
  }
}

TEST_P(ReferenceModelTest, ForcedContinuationsInBf16AreNear) {
  GroupOptions options = GetParam();
  options.type = ComputeType::kBFloat16;
  WithGroup(model_, options, [&](TpGroup& group, const ForwardModel& model) {
    StepDriver driver(&group, model, 1);
    for (const auto& item : StoredContinuations()) {
      SCOPED_TRACE(item["text"].get<std::string>());
      Ids ids = item["ids"].get<Ids>();
      const size_t prompt = ids.size();
      const Ids continuation = item["greedy"].get<Ids>();
      ids.insert(ids.end(), continuation.begin(), continuation.end() - 1);
      const std::vector<float> logits = driver.Step({{0, ids, true}});
      for (size_t step = 0; step < continuation.size(); ++step) {
        const size_t row = prompt - 1 + step;
        ExpectNearStep(std::span(logits).subspan(row * driver.vocab_size(), driver.vocab_size()),
                       item["steps"][step]["top"]);
      }
      driver.Drop(0);
    }
  });
}

}  // namespace
}  // namespace hanlin
