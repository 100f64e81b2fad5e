// Law 5 of the engine: a sequence's logits are the same bits alone and among neighbours, whole and
// in chunks, on any blocks, with any number of threads.
#include <cstring>
#include <random>

#include "common/io/data_dir.h"
#include "common/testing/testing.h"
#include "model/forward/testing.h"

namespace hanlin {
namespace {

using testing::Device;
using testing::GroupOptions;
using testing::Ids;
using testing::StepDriver;
using testing::WithGroup;

constexpr int kSequences = 5;
constexpr int kMaxTokens = 70;  // crosses several KV blocks

std::vector<Ids> RandomSequences(int vocab_size) {
  std::mt19937 random(7);
  std::vector<Ids> sequences(kSequences);
  for (Ids& ids : sequences) {
    ids.resize(kMaxTokens / 3 + random() % (kMaxTokens * 2 / 3));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % vocab_size);
  }
  return sequences;
}

// Logits of every position of every sequence, each fed alone in one step.
std::vector<std::vector<float>> Alone(const std::vector<Ids>& sequences, StepDriver* driver) {
  std::vector<std::vector<float>> logits;
  for (const Ids& ids : sequences) {
    logits.push_back(driver->Step({{0, ids, true}}));
    driver->Drop(0);
  }
  return logits;
}

// The same, all sequences together, each step a random number of tokens of some of them.
std::vector<std::vector<float>> InRandomChunks(const std::vector<Ids>& sequences, uint32_t seed,
                                               StepDriver* driver) {
  std::mt19937 random(seed);
  std::vector<std::vector<float>> logits(sequences.size());
  std::vector<size_t> fed(sequences.size(), 0);
  for (;;) {
    std::vector<StepDriver::Work> works;
    bool left = false;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const size_t rest = sequences[i].size() - fed[i];
      left |= rest > 0;
      if (rest == 0 || random() % 3 == 0) continue;
      const size_t count = random() % 2 == 0 ? 1 : 1 + random() % std::min<size_t>(rest, 40);
      works.push_back({static_cast<int>(i),
                       std::span(sequences[i]).subspan(fed[i], std::min(count, rest)), true});
    }
    if (!left) break;
    if (works.empty()) continue;
    const std::vector<float> step = driver->Step(works);
    auto row = step.begin();
    for (const StepDriver::Work& work : works) {
      const auto end = row + work.tokens.size() * driver->vocab_size();
      logits[work.sequence].insert(logits[work.sequence].end(), row, end);
      fed[work.sequence] += work.tokens.size();
      row = end;
    }
  }
  for (size_t i = 0; i < sequences.size(); ++i) driver->Drop(static_cast<int>(i));
  return logits;
}

class InvarianceTest : public ::testing::TestWithParam<GroupOptions> {};
INSTANTIATE_TEST_SUITE_P(
    Shapes, InvarianceTest,
    ::testing::Values(GroupOptions{.type = ComputeType::kFloat32, .threads = 2},
                      GroupOptions{.type = ComputeType::kBFloat16, .threads = 3},
                      GroupOptions{.type = ComputeType::kBFloat16, .max_tokens_per_pass = 24},
                      GroupOptions{.type = ComputeType::kFloat32, .tp_size = 2},
                      GroupOptions{.device = Device::kCuda, .type = ComputeType::kBFloat16},
                      GroupOptions{.device = Device::kCuda,
                                   .type = ComputeType::kBFloat16,
                                   .max_tokens_per_pass = 24}));

TEST_P(InvarianceTest, ChunksAndNeighboursChangeNoBit) {
  if (const std::string why = testing::WhyNot(GetParam()); !why.empty()) GTEST_SKIP() << why;
  ASSERT_OK_AND_ASSIGN(const std::string directory, DefaultModelDirectory());
  std::vector<std::vector<float>> want;
  std::vector<Ids> sequences;
  const GroupOptions plain = {
      .device = GetParam().device, .type = GetParam().type, .tp_size = GetParam().tp_size};
  WithGroup(directory, plain, [&](TpGroup& group, const ForwardModel& model) {
    StepDriver driver(&group, model, 1);
    sequences = RandomSequences(driver.vocab_size());
    want = Alone(sequences, &driver);
  });
  WithGroup(directory, GetParam(), [&](TpGroup& group, const ForwardModel& model) {
    StepDriver driver(&group, model, 2);
    for (const uint32_t seed : {1u, 2u}) {
      EXPECT_TRUE(InRandomChunks(sequences, seed, &driver) == want) << "seed " << seed;
    }
  });
}

}  // namespace
}  // namespace hanlin
