// What a launch leaves beside the ids: log-probabilities, counts and positions, and what the next
// launch of a graph makes of them.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/sampling/cuda/sample.h"
#include "kernels/sampling/cuda/sample_testing.h"

namespace hanlin {
namespace {

TEST_F(SampleGpuTest, LogprobsAreThoseOfTheRawLogits) {
  std::vector<SampleCase> cases;
  for (int r = 0; r < 60; ++r) {
    cases.push_back(RandomCase(9000));
    cases.back().logprobs = r % 4 == 0 ? -1 : r % 4 == 1 ? 0 : r % 4 == 2 ? 5 : 20;
  }
  for (int cluster : {0, 1, 4}) {
    const Result result = Run(cases, cluster);
    for (size_t r = 0; r < cases.size(); ++r) {
      const SampleCase& c = cases[r];
      EXPECT_EQ(result.ids[r], Expected(c));
      if (c.logprobs < 0) continue;
      EXPECT_NEAR(result.logprob[r], Logprob(c.logits, result.ids[r]), 1e-5) << r;
      const std::vector<TokenLogprob> top = TopLogprobs(c.logits, c.logprobs);
      for (size_t i = 0; i < top.size(); ++i) {
        EXPECT_EQ(result.top_ids[r * kSampleMaxLogprobs + i], top[i].id) << r << ' ' << i;
        EXPECT_NEAR(result.top_logprobs[r * kSampleMaxLogprobs + i], top[i].logprob, 1e-5) << r;
      }
      for (size_t i = top.size(); i < kSampleMaxLogprobs; ++i) {
        EXPECT_EQ(result.top_ids[r * kSampleMaxLogprobs + i], -7) << "beyond what was asked";
      }
    }
  }
}

TEST_F(SampleGpuTest, TopLogprobsOfATinyVocabularyAreAllOfIt) {
  SampleCase c{.logits = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f}, .params = {.temperature = 0}};
  c.logprobs = 5;
  const Result result = Run({c});
  const std::vector<int32_t> want = {1, 3, 2, 0, 4};
  EXPECT_EQ(std::vector<int32_t>(result.top_ids.begin(), result.top_ids.begin() + 5), want);
}

TEST_F(SampleGpuTest, WritesIdsBySlotCountsThemAdvancesPositionsAndLeavesPaddedRowsAlone) {
  std::vector<SampleCase> cases;
  for (int r = 0; r < 20; ++r) {
    cases.push_back(RandomCase(500));
    cases.back().position = 100 + r;
    cases.back().padded = r % 5 == 4;
    cases.back().ids = {3, 3, 7, 499};
    cases.back().params.frequency_penalty = r % 2 == 0 ? 0.5f : 0.0f;
  }
  const Result result = Run(cases);
  for (int r = 0; r < 20; ++r) {
    const SampleCase& c = cases[r];
    if (c.padded) {
      EXPECT_EQ(result.ids[r], -1);
      EXPECT_EQ(result.drawn[19 - r], -7);
      EXPECT_EQ(result.positions[r], 99 + r);
      continue;
    }
    EXPECT_EQ(result.ids[r], Expected(c));
    EXPECT_EQ(result.drawn[19 - r], result.ids[r]);
    EXPECT_EQ(result.positions[r], 100 + r);
    if (!HasPenalties(c.params)) continue;
    std::vector<uint16_t> want(500);
    for (int32_t id : c.ids) ++want[id];
    ++want[result.ids[r]];
    EXPECT_EQ(std::vector<uint16_t>(result.counts.begin() + r * 500,
                                    result.counts.begin() + (r + 1) * 500),
              want);
  }
}

TEST_F(SampleGpuTest, ASequenceOfLaunchesInAGraphFollowsTheCpuSamplerStepByStep) {
  // The logits stay, counts and position move on the device.
  SampleCase c{.logits = Logits(5000, 1.0f),
               .params = {.top_p = 0.9f, .frequency_penalty = 0.4f, .seed = 11},
               .ids = {1, 2, 2}};
  c.position = 3;
  constexpr int kSteps = 30;
  std::vector<int32_t> want;
  for (int i = 0; i < kSteps; ++i) {
    want.push_back(Expected(c));
    c.ids.push_back(want.back());
    ++c.position;
  }
  const auto logits = OnDevice(c.logits);
  SampleSlot slot = MakeSampleSlot(c.params);
  slot.counts_row = 0;
  const auto slots = OnDevice(std::vector<SampleSlot>{slot});
  const auto counts = OnDevice(std::vector<uint16_t>(5000));
  const auto row_slots = OnDevice(std::vector<int32_t>{0});
  const auto positions = OnDevice(std::vector<int32_t>{3});
  const auto prompt = OnDevice(std::vector<int32_t>{1, 2, 2});
  const auto ids = OnDevice(std::vector<int32_t>(kSteps));
  const auto workspace = OnDevice(std::vector<float>(Up64(5000)));
  ASSERT_TRUE(CudaCountIds(prompt.data(), 3, 5000, counts.data(), stream_.get()).ok());
  const SamplePlan plan = *PlanSample(1, 5000, device_);
  const auto graph = CudaGraph::Capture(stream_, [&]() -> absl::Status {
    for (int i = 0; i < kSteps; ++i) {
      RETURN_IF_ERROR(CudaSample({.rows = 1,
                                  .vocabulary = 5000,
                                  .logits = logits.data(),
                                  .logits_stride = 5000,
                                  .row_slots = row_slots.data(),
                                  .slots = slots.data(),
                                  .positions = positions.data(),
                                  .advance = positions.data(),
                                  .counts = counts.data(),
                                  .workspace = workspace.data(),
                                  .ids = ids.data() + i},
                                 plan, stream_.get()));
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(graph.ok()) << graph.status();
  ASSERT_TRUE(graph->Launch(stream_).ok());
  EXPECT_EQ(FromDevice(ids), want);
}

}  // namespace
}  // namespace hanlin
