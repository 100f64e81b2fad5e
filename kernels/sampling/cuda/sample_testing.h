// What the tests of sampling on the device share: rows with all that a request can ask for, a
// launch over a batch of them, and the ids that Sampler draws for them.
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_TESTING_H_
#define HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_TESTING_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/sampling/cuda/sample.h"

namespace hanlin {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline int Up64(int ids) { return (ids + 63) / 64 * 64; }

// One row of a batch.
struct SampleCase {
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
  Result Run(const std::vector<SampleCase>& cases, std::optional<int> cluster = {},
             int padding = 0) {
    const int rows = static_cast<int>(cases.size());
    const int vocabulary = static_cast<int>(cases[0].logits.size());
    const int stride = vocabulary + padding;
    std::vector<float> logits(static_cast<size_t>(rows) * stride, kInfinity);
    std::vector<int32_t> row_slots(rows), positions(rows), banned(1);
    std::vector<SampleSlot> slots(rows);
    std::vector<SampleBias> bias(1);
    const auto counts = OnDevice(std::vector<uint16_t>(static_cast<size_t>(rows) * vocabulary, 9));
    for (int r = 0; r < rows; ++r) {
      const SampleCase& c = cases[r];
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

  static int32_t Expected(const SampleCase& c) {
    std::vector<LogitBias> bias = c.bias;
    for (int32_t id : c.banned) bias.push_back({id, -kInfinity});
    return Sampler().Sample(
        c.logits, c.params,
        {.logit_bias = bias, .ids = c.ids, .position = static_cast<uint64_t>(c.position)});
  }

  void Check(const std::vector<SampleCase>& cases, std::optional<int> cluster = {},
             int padding = 0) {
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
    std::vector<float> logits(vocabulary);
    if (spread == 0.0f) return logits;  // which a normal distribution does not have
    std::normal_distribution<float> normal(0.0f, spread);
    for (float& logit : logits) logit = normal(random_);
    return logits;
  }

  SampleCase RandomCase(int vocabulary) {
    const auto one_of = [&](auto... values) {
      const std::common_type_t<decltype(values)...> all[] = {values...};
      return all[random_() % sizeof...(values)];
    };
    SampleCase c;
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

}  // namespace hanlin

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_TESTING_H_
