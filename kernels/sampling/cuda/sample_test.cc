// Ids against Sampler's, row by row over combinations of parameters, distributions, vocabularies
// and plans, and for the paths of top-p.
#include "kernels/sampling/cuda/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/sampling/cuda/sample_testing.h"

namespace hanlin {
namespace {

// What the sanitizers run: the row in global memory, in a block's, and in a cluster's.
TEST_F(SampleGpuTest, AFewSmallShapes) {
  std::vector<SampleCase> cases;
  for (const SamplingParams& params :
       {SamplingParams{.temperature = 0}, SamplingParams{.top_k = 30},
        SamplingParams{.top_p = 0.9f}, SamplingParams{.top_k = 40, .top_p = 0.8f, .min_p = 0.01f},
        SamplingParams{.top_p = 0.3f, .repetition_penalty = 1.3f}}) {
    cases.push_back({.logits = Logits(300, 2.0f), .params = params, .ids = {3, 3, 70}});
    cases.back().logprobs = 5;
  }
  cases[1].bias = {{7, 3.0f}};
  cases[2].banned = {0, 75};
  for (int cluster : {0, 1, 2}) Check(cases, cluster);
}

TEST_F(SampleGpuTest, DrawsTheIdsOfTheCpuSamplerForEveryCombination) {
  for (int vocabulary : {1, 2, 63, 65, 130, 1000, 8192, 25600, 51200, 51201, 100003}) {
    for (int repeat = 0; repeat < (vocabulary < 10000 ? 4 : 2); ++repeat) {
      std::vector<SampleCase> cases;
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
  std::vector<SampleCase> cases;
  cases.reserve(40);
  for (int r = 0; r < 40; ++r) cases.push_back(RandomCase(25600));
  for (int cluster : {0, 1, 2, 4, 8}) Check(cases, cluster);
}

TEST_F(SampleGpuTest, TiesInThousandsAreCutByTheId) {
  std::vector<SampleCase> cases;
  for (int r = 0; r < 24; ++r) {
    SampleCase c;
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
    std::vector<SampleCase> cases;
    for (int r = 0; r < 256; ++r) {
      SampleCase c{.logits =
                       Logits(vocabulary, (r % 5 + 1) * (r % 5) * 0.3f)};  // from all alike to 6
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
  std::vector<SampleCase> cases;
  for (int r = 0; r < 120; ++r) {
    // The rest weighs nothing; of n equal logits before which lies 1/n each, top-p is k/n.
    const int n = 4 << (r % 3);
    SampleCase c{.logits = std::vector<float>(9000, r % 2 == 0 ? -kInfinity : -40.0f)};
    for (int i = 0; i < n; ++i) c.logits[i * (9000 / n) + 7] = 2.5f;
    c.params = {.top_p = static_cast<float>(r % (n - 1) + 1) / static_cast<float>(n)};
    c.position = r;
    cases.push_back(c);
  }
  for (int cluster : {0, 1, 4}) Check(cases, cluster);
}

TEST_F(SampleGpuTest, ARowWhoseThreadsBoundItsMassPoorlyIsDrawnByTheCut) {
  std::vector<SampleCase> cases;
  for (int r = 0; r < 16; ++r) {
    SampleCase c{.logits = std::vector<float>(51200), .params = {.top_p = 0.1f * (r % 8 + 2)}};
    for (int i = 0; i < 51200; ++i) c.logits[i] = i % 2 == 0 ? 3.0f : -300.0f;
    c.position = r;
    cases.push_back(c);
  }
  for (int cluster : {0, 1, 8}) Check(cases, cluster);
}

TEST_F(SampleGpuTest, UnusualValuesGiveTheIdsOfTheCpuSampler) {
  std::vector<SampleCase> cases;
  for (const SamplingParams& params :
       {SamplingParams{}, SamplingParams{.temperature = 0}, SamplingParams{.top_k = 3},
        SamplingParams{.top_p = 0.5f}, SamplingParams{.min_p = 0.5f},
        SamplingParams{.top_k = 40, .top_p = 0.9f}}) {
    for (int kind = 0; kind < 5; ++kind) {
      SampleCase c{.logits = Logits(3000, 2.0f), .params = params};
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

}  // namespace
}  // namespace hanlin
