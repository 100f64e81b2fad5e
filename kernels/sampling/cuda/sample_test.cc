// The plan's laws on the host; on the device, ids against Sampler's, row by row over combinations
// of parameters, distributions, vocabularies and plans, and for the paths of top-p;
// log-probabilities, counts and positions.
#include "kernels/sampling/cuda/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "common/cuda/testing.h"

namespace hanlin {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int Up64(int ids) { return (ids + 63) / 64 * 64; }

CudaDevice H100() {
  CudaDevice device;
  device.hopper = true;
  device.multiprocessors = 132;
  device.shared_memory_per_block = 232448;
  return device;
}

TEST(SamplePlanTest, FewRowsShareTheDeviceAndManyTakeOneBlockEach) {
  EXPECT_EQ(PlanSample(1, 51200, H100())->cluster, 8);
  EXPECT_EQ(PlanSample(14, 51200, H100())->cluster, 8);
  EXPECT_EQ(PlanSample(16, 51200, H100())->cluster, 4) << "15 clusters of 8 run at once";
  EXPECT_EQ(PlanSample(32, 51200, H100())->cluster, 2) << "30 clusters of 4 run at once";
  EXPECT_EQ(PlanSample(128, 51200, H100())->cluster, 1);
  EXPECT_EQ(PlanSample(1, 1000, H100())->cluster, 1) << "not worth sharing";
  EXPECT_EQ(PlanSample(500, 151936, H100())->cluster, 4) << "does not fit in fewer";
}

TEST(SamplePlanTest, ThePlainPathHasOneBlockARow) {
  CudaDevice a100;
  a100.multiprocessors = 108;
  a100.shared_memory_per_block = 166912;
  for (int rows : {1, 64, 500}) {
    for (int vocabulary : {1, 51201, kSampleMaxVocabulary}) {
      const SamplePlan plan = *PlanSample(rows, vocabulary, a100);
      EXPECT_TRUE(plan.plain);
      EXPECT_EQ(plan.cluster, 1);
      EXPECT_EQ(plan.slice, (vocabulary + 63) / 64 * 64);
      EXPECT_EQ(plan.shared_bytes, kSampleScratchBytes);
    }
  }
}

TEST(SamplePlanTest, SlicesCoverTheVocabularyInWholeGroups) {
  for (int vocabulary : {1, 64, 65, 25600, 51200, 51201, 250000, kSampleMaxVocabulary}) {
    for (int rows : {1, 7, 128, 1000}) {
      const auto plan = PlanSample(rows, vocabulary, H100());
      ASSERT_TRUE(plan.ok()) << plan.status();
      EXPECT_EQ(plan->slice % 64, 0);
      EXPECT_GE(plan->slice * plan->cluster, vocabulary);
      EXPECT_LE(plan->shared_bytes, 232448);
    }
  }
}

TEST(SamplePlanTest, RefusesWhatTheKernelDoesNotDo) {
  EXPECT_FALSE(PlanSample(1, 0, H100()).ok());
  EXPECT_FALSE(PlanSample(1, kSampleMaxVocabulary + 1, H100()).ok());
  EXPECT_FALSE(PlanSample(-1, 100, H100()).ok());
  CudaDevice small = H100();
  small.shared_memory_per_block = 49152;
  EXPECT_FALSE(PlanSample(1, 200000, small).ok());
}

TEST(SampleTest, RefusesBadParametersBeforeAnyLaunch) {
  SamplePlan plan = *PlanSample(1, 100, H100());
  EXPECT_FALSE(CudaSample({.rows = 1, .vocabulary = 100, .logits_stride = 100}, plan, {}).ok());
  EXPECT_FALSE(CudaSample({.rows = 1, .vocabulary = 100, .logits_stride = 99}, plan, {}).ok());
  EXPECT_FALSE(CudaSample({.rows = 1, .vocabulary = 200, .logits_stride = 200}, plan, {}).ok());
  EXPECT_TRUE(CudaSample({.rows = 0, .vocabulary = 100, .logits_stride = 100}, plan, {}).ok());
  plan.plain = true;
  plan.cluster = 2;
  EXPECT_FALSE(CudaSample({.rows = 0, .vocabulary = 100, .logits_stride = 100}, plan, {}).ok());
}

TEST(SampleSlotTest, HoldsWhatTheHostComputesOnce) {
  EXPECT_TRUE(MakeSampleSlot({.temperature = 0.0f}).greedy);
  EXPECT_FALSE(MakeSampleSlot({.temperature = 0.5f}).greedy);
  EXPECT_EQ(MakeSampleSlot({.temperature = 0.5f}).scale, 2.0f);
  EXPECT_EQ(MakeSampleSlot({.min_p = 0.5f}).log_min_p, std::log(0.5f));
  EXPECT_FALSE(MakeSampleSlot({}).has_min_p);
}

// One row of a batch.
struct Case {
  std::vector<float> logits;
  SamplingParams params;
  std::vector<LogitBias> bias;
  std::vector<int32_t> banned;
  std::vector<int32_t> ids;  // prompt and output so far
  int32_t position = 0;
  int32_t logprobs = -1;
  bool padded = false;
};

class SampleGpuTest : public GpuTest {
 protected:
  struct Result {
    std::vector<int32_t> ids, drawn, positions;
    std::vector<uint16_t> counts;
    std::vector<float> logprob, top_logprobs;
    std::vector<int32_t> top_ids;
  };

  // Slots are taken in reverse, so that a row is not its slot. Cluster 0 stands for the
  // plain path.
  Result Run(const std::vector<Case>& cases, std::optional<int> cluster = {}, int padding = 0) {
    const int rows = static_cast<int>(cases.size());
    const int vocabulary = static_cast<int>(cases[0].logits.size());
    const int stride = vocabulary + padding;
    std::vector<float> logits(static_cast<size_t>(rows) * stride, kInfinity);
    std::vector<int32_t> row_slots(rows), positions(rows), banned(1);
    std::vector<SampleSlot> slots(rows);
    std::vector<SampleBias> bias(1);
    const auto counts = OnDevice(std::vector<uint16_t>(static_cast<size_t>(rows) * vocabulary, 9));
    for (int r = 0; r < rows; ++r) {
      const Case& c = cases[r];
      std::copy(c.logits.begin(), c.logits.end(), logits.begin() + static_cast<size_t>(r) * stride);
      row_slots[r] = c.padded ? -1 : rows - 1 - r;
      positions[r] = c.position - 1;
      SampleSlot& slot = slots[rows - 1 - r] = MakeSampleSlot(c.params);
      slot.bias_begin = static_cast<int32_t>(bias.size());
      slot.bias_count = static_cast<int32_t>(c.bias.size());
      for (const LogitBias& b : c.bias) bias.push_back({b.id, b.bias});
      slot.banned_begin = static_cast<int32_t>(banned.size());
      slot.banned_count = static_cast<int32_t>(c.banned.size());
      slot.banned_before = c.position + 1;
      banned.insert(banned.end(), c.banned.begin(), c.banned.end());
      slot.logprobs = c.logprobs;
      if (HasPenalties(c.params)) {
        slot.counts_row = r;
        const auto ids = OnDevice(c.ids);
        EXPECT_TRUE(CudaCountIds(ids.data(), static_cast<int32_t>(c.ids.size()), vocabulary,
                                 counts.data() + static_cast<size_t>(r) * vocabulary, stream_.get())
                        .ok());
        EXPECT_TRUE(stream_.Synchronize().ok());
      }
    }
    const auto d_logits = OnDevice(logits);
    const auto d_row_slots = OnDevice(row_slots), d_positions = OnDevice(positions);
    const auto d_banned = OnDevice(banned);
    const auto d_slots = OnDevice(slots);
    const auto d_bias = OnDevice(bias);
    const auto d_drawn = OnDevice(std::vector<int32_t>(rows, -7));
    const auto d_ids = OnDevice(std::vector<int32_t>(rows, -7));
    const auto d_logprob = OnDevice(std::vector<float>(rows));
    const auto d_top_ids = OnDevice(std::vector<int32_t>(rows * kSampleMaxLogprobs, -7));
    const auto workspace =
        OnDevice(std::vector<float>(static_cast<size_t>(rows) * Up64(vocabulary)));
    const auto d_top = OnDevice(std::vector<float>(rows * kSampleMaxLogprobs));
    const CudaSampleParams params{.rows = rows,
                                  .vocabulary = vocabulary,
                                  .logits = d_logits.data(),
                                  .logits_stride = stride,
                                  .row_slots = d_row_slots.data(),
                                  .slots = d_slots.data(),
                                  .positions = d_positions.data(),
                                  .position_offset = 1,
                                  .advance = d_positions.data(),
                                  .bias = d_bias.data(),
                                  .banned = d_banned.data(),
                                  .counts = counts.data(),
                                  .workspace = workspace.data(),
                                  .drawn = d_drawn.data(),
                                  .ids = d_ids.data(),
                                  .logprob = d_logprob.data(),
                                  .top_ids = d_top_ids.data(),
                                  .top_logprobs = d_top.data()};
    auto plan = PlanSample(rows, vocabulary, device_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    if (cluster.has_value()) {
      plan->plain = *cluster == 0;
      plan->cluster = std::max(1, *cluster);
      plan->slice = Up64((vocabulary + plan->cluster - 1) / plan->cluster);
      plan->shared_bytes = plan->plain ? kSampleScratchBytes : SampleSharedBytes(plan->slice);
    }
    const absl::Status launched = CudaSample(params, *plan, stream_.get());
    EXPECT_TRUE(launched.ok()) << launched;
    return {FromDevice(d_ids),     FromDevice(d_drawn), FromDevice(d_positions), FromDevice(counts),
            FromDevice(d_logprob), FromDevice(d_top),   FromDevice(d_top_ids)};
  }

  static int32_t Expected(const Case& c) {
    std::vector<LogitBias> bias = c.bias;
    for (int32_t id : c.banned) bias.push_back({id, -kInfinity});
    return Sampler().Sample(
        c.logits, c.params,
        {.logit_bias = bias, .ids = c.ids, .position = static_cast<uint64_t>(c.position)});
  }

  void Check(const std::vector<Case>& cases, std::optional<int> cluster = {}, int padding = 0) {
    const std::vector<int32_t> ids = Run(cases, cluster, padding).ids;
    int wrong = 0;
    for (size_t r = 0; r < cases.size(); ++r) {
      const int32_t want = Expected(cases[r]);
      if (ids[r] == want || ++wrong > 5) continue;
      const SamplingParams& p = cases[r].params;
      ADD_FAILURE() << "row " << r << ": drew " << ids[r] << ", want " << want << " of "
                    << cases[r].logits.size() << " ids; temperature " << p.temperature << " top_k "
                    << p.top_k << " top_p " << p.top_p << " min_p " << p.min_p << " penalties "
                    << HasPenalties(p) << " bias " << cases[r].bias.size() << " cluster "
                    << cluster.value_or(0);
    }
    EXPECT_EQ(wrong, 0) << "of " << cases.size() << " rows";
    rows_checked_ += cases.size();
  }

  std::vector<float> Logits(int vocabulary, float spread) {
    std::normal_distribution<float> normal(0.0f, spread);
    std::vector<float> logits(vocabulary);
    for (float& logit : logits) logit = normal(random_);
    return logits;
  }

  Case RandomCase(int vocabulary) {
    const auto one_of = [&](auto... values) {
      const std::common_type_t<decltype(values)...> all[] = {values...};
      return all[random_() % sizeof...(values)];
    };
    Case c;
    c.logits = Logits(vocabulary, one_of(0.02f, 0.5f, 1.0f, 2.5f, 6.0f, 30.0f));
    if (random_() % 8 == 0) {  // as a product in bf16 would give them: many ties
      for (float& logit : c.logits) logit = std::round(logit * 8) / 8;
    }
    c.params = {.temperature = one_of(0.0f, 0.3f, 0.7f, 1.0f, 1.0f, 1.7f),
                .top_k = one_of(0, 0, 0, 1, 5, 50, 700, vocabulary, vocabulary + 9),
                .top_p = one_of(1.0f, 1.0f, 0.9f, 0.9f, 0.3f, 0.999f, 0.01f),
                .min_p = one_of(0.0f, 0.0f, 0.0f, 0.05f, 0.9f),
                .seed = random_() * uint64_t{0x100000001},
                .choice = static_cast<uint32_t>(random_() % 3)};
    if (random_() % 3 == 0) {
      c.params.repetition_penalty = one_of(1.0f, 1.3f, 0.8f);
      c.params.presence_penalty = one_of(0.0f, 0.5f, -0.7f);
      c.params.frequency_penalty = one_of(0.0f, 0.2f, -0.1f);
      for (int n = random_() % 300; n > 0; --n) {
        c.ids.push_back(static_cast<int32_t>(random_() % vocabulary / one_of(1, 1, 100)));
      }
    }
    if (random_() % 4 == 0) {
      for (int i = 0; i < 20; ++i) {
        const auto id = static_cast<int32_t>(random_() % vocabulary);
        const bool twice = std::any_of(c.bias.begin(), c.bias.end(),
                                       [id](const LogitBias& b) { return b.id == id; });
        if (!twice) c.bias.push_back({id, one_of(-kInfinity, 3.0f, -2.0f, 0.3f)});
      }
      c.bias.push_back({vocabulary, 100.0f});  // ignored
    }
    if (random_() % 4 == 0) c.banned = {0, vocabulary / 2, vocabulary - 1, vocabulary + 3};
    c.position = static_cast<int32_t>(random_() % 2048);
    return c;
  }

  std::mt19937 random_{20260101};
  size_t rows_checked_ = 0;
};

TEST_F(SampleGpuTest, DrawsTheIdsOfTheCpuSamplerForEveryCombination) {
  for (int vocabulary : {1, 2, 63, 65, 130, 1000, 8192, 25600, 51200, 51201, 100003}) {
    for (int repeat = 0; repeat < (vocabulary < 10000 ? 4 : 2); ++repeat) {
      std::vector<Case> cases;
      const int count = vocabulary < 60000 ? 128 : 24;
      cases.reserve(count);
      for (int r = 0; r < count; ++r) {
        cases.push_back(RandomCase(vocabulary));
      }
      Check(cases, {}, repeat % 2);
    }
  }
  RecordProperty("rows", static_cast<int>(rows_checked_));
}

TEST_F(SampleGpuTest, DrawsDoNotDependOnThePlan) {
  std::vector<Case> cases;
  cases.reserve(40);
  for (int r = 0; r < 40; ++r) cases.push_back(RandomCase(25600));
  for (int cluster : {0, 1, 2, 4, 8}) Check(cases, cluster);
}

TEST_F(SampleGpuTest, TiesInThousandsAreCutByTheId) {
  std::vector<Case> cases;
  for (int r = 0; r < 24; ++r) {
    Case c;
    c.logits.assign(20000, r % 2 == 0 ? 1.5f : 0.0f);
    for (int i = 0; i < 20000; i += 3) c.logits[i] = r % 3 == 0 ? 1.5f : -0.0f;
    c.params = {.temperature = 0.9f,
                .top_k = r % 4 == 0 ? 10000 : 0,
                .top_p = r % 5 == 0 ? 1.0f : 0.1f * static_cast<float>(r % 9 + 1)};
    c.position = r;
    cases.push_back(c);
  }
  for (int cluster : {0, 1, 8}) Check(cases, cluster);
}

TEST_F(SampleGpuTest, TopPAloneDrawsTheIdsOfTheCpuSampler) {
  constexpr float kTopP[] = {0.19f, 0.2f, 0.3f, 0.5f, 0.8f, 0.9f, 0.95f, 0.999f};
  for (int vocabulary : {70, 5000, 51200, 51201}) {
    std::vector<Case> cases;
    for (int r = 0; r < 256; ++r) {
      Case c{.logits = Logits(vocabulary, (r % 5 + 1) * (r % 5) * 0.3f)};  // from all alike to 6
      for (float& logit : c.logits) {
        if (r % 3 == 0) logit = std::round(logit * 8) / 8;
        if (r % 7 == 0 && random_() % 3 != 0) logit = -kInfinity;
        if (r % 11 == 0) logit += 20000.0f;
      }
      c.params = {.temperature = r % 4 == 0 ? 0.6f : 1.0f,
                  .top_p = kTopP[r % 8],
                  .seed = static_cast<uint64_t>(r)};
      c.position = r;
      cases.push_back(c);
    }
    Check(cases, {}, vocabulary % 2);
    for (int cluster : {0, 2, 8}) {
      if (vocabulary == 5000) Check(cases, cluster);
    }
  }
}

TEST_F(SampleGpuTest, AMassThatMeetsTheLimitOfTopPIsWithinIt) {
  std::vector<Case> cases;
  for (int r = 0; r < 120; ++r) {
    // The rest weighs nothing; of n equal logits before which lies 1/n each, top-p is k/n.
    const int n = 4 << (r % 3);
    Case c{.logits = std::vector<float>(9000, r % 2 == 0 ? -kInfinity : -40.0f)};
    for (int i = 0; i < n; ++i) c.logits[i * 900 + 7] = 2.5f;
    c.params = {.top_p = static_cast<float>(r % (n - 1) + 1) / static_cast<float>(n)};
    c.position = r;
    cases.push_back(c);
  }
  for (int cluster : {0, 1, 4}) Check(cases, cluster);
}

TEST_F(SampleGpuTest, ARowWhoseThreadsBoundItsMassPoorlyIsDrawnByTheCut) {
  std::vector<Case> cases;
  for (int r = 0; r < 16; ++r) {
    Case c{.logits = std::vector<float>(51200), .params = {.top_p = 0.1f * (r % 8 + 2)}};
    for (int i = 0; i < 51200; ++i) c.logits[i] = i % 2 == 0 ? 3.0f : -300.0f;
    c.position = r;
    cases.push_back(c);
  }
  for (int cluster : {0, 1, 8}) Check(cases, cluster);
}

TEST_F(SampleGpuTest, UnusualValuesGiveTheIdsOfTheCpuSampler) {
  std::vector<Case> cases;
  for (const SamplingParams& params :
       {SamplingParams{}, SamplingParams{.temperature = 0}, SamplingParams{.top_k = 3},
        SamplingParams{.top_p = 0.5f}, SamplingParams{.min_p = 0.5f},
        SamplingParams{.top_k = 40, .top_p = 0.9f}}) {
    for (int kind = 0; kind < 5; ++kind) {
      Case c{.logits = Logits(3000, 2.0f), .params = params};
      if (kind == 0) std::fill(c.logits.begin(), c.logits.end(), NAN);
      if (kind == 1) std::fill(c.logits.begin(), c.logits.end(), -kInfinity);
      if (kind == 2) c.logits[77] = c.logits[1900] = NAN;
      if (kind == 3) std::fill(c.logits.begin() + 2, c.logits.end(), -kInfinity);
      if (kind == 4) c.logits[700] = c.logits[2100] = kInfinity;
      cases.push_back(c);
    }
  }
  for (int cluster : {0, 1, 2}) Check(cases, cluster);
}

TEST_F(SampleGpuTest, LogprobsAreThoseOfTheRawLogits) {
  std::vector<Case> cases;
  for (int r = 0; r < 60; ++r) {
    cases.push_back(RandomCase(9000));
    cases.back().logprobs = r % 4 == 0 ? -1 : r % 4 == 1 ? 0 : r % 4 == 2 ? 5 : 20;
  }
  for (int cluster : {0, 1, 4}) {
    const Result result = Run(cases, cluster);
    for (size_t r = 0; r < cases.size(); ++r) {
      const Case& c = cases[r];
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
  Case c{.logits = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f}, .params = {.temperature = 0}};
  c.logprobs = 5;
  const Result result = Run({c});
  const std::vector<int32_t> want = {1, 3, 2, 0, 4};
  EXPECT_EQ(std::vector<int32_t>(result.top_ids.begin(), result.top_ids.begin() + 5), want);
}

TEST_F(SampleGpuTest, WritesIdsBySlotCountsThemAdvancesPositionsAndLeavesPaddedRowsAlone) {
  std::vector<Case> cases;
  for (int r = 0; r < 20; ++r) {
    cases.push_back(RandomCase(500));
    cases.back().position = 100 + r;
    cases.back().padded = r % 5 == 4;
    cases.back().ids = {3, 3, 7, 499};
    cases.back().params.frequency_penalty = r % 2 == 0 ? 0.5f : 0.0f;
  }
  const Result result = Run(cases);
  for (int r = 0; r < 20; ++r) {
    const Case& c = cases[r];
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
  Case c{.logits = Logits(5000, 1.0f),
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
