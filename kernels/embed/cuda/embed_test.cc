// The embedding against its definition: both types, shards, ids from the sampler, padded rows, odd
// widths.
#include "kernels/embed/cuda/embed.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <vector>

#include "common/cuda/pinned.h"
#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::TypeOf;

TEST(EmbedTest, RefusesBadParametersBeforeAnyLaunch) {
  EXPECT_FALSE(CudaEmbed({.rows = -1, .width = 8}, nullptr).ok());
  EXPECT_FALSE(CudaEmbed({.rows = 1, .width = 0}, nullptr).ok());
  EXPECT_FALSE(CudaEmbed({.rows = 1, .width = 8}, nullptr).ok()) << "no pointers";
  EXPECT_TRUE(CudaEmbed({.rows = 0, .width = 8}, nullptr).ok());
}

class EmbedGpuTest : public GpuTest {
 protected:
  template <typename T>
  void Check(int64_t width, bool with_positions) {
    SCOPED_TRACE(::testing::Message() << "width " << width << " positions " << with_positions);
    constexpr int64_t kBegin = 100, kRows = 50, kPositions = 20;
    // Inside the shard, at its ends, outside; through the sampler inside and outside.
    const std::vector<int32_t> ids = {120, 100, 149, 99, 150, -1, -3, 130, 120};
    const std::vector<int32_t> drawn = {111, 7, 3};
    const std::vector<int32_t> positions = {0, 18, 5, 6, 7, 8, 9, -1, 19};
    const auto table = Convert<T>(RandomFloats(kRows * width, 1));
    const std::vector<float> places = RandomFloats(kPositions * width, 2);
    const auto d_ids = OnDevice(ids), d_drawn = OnDevice(drawn), d_positions = OnDevice(positions);
    const auto d_table = OnDevice(table);
    const auto d_places = OnDevice(places);
    const auto x = OnDevice(std::vector<float>((ids.size() + 1) * width, 77.0f));
    const absl::Status launched =
        CudaEmbed({.rows = static_cast<int64_t>(ids.size()),
                   .width = width,
                   .ids = d_ids.data(),
                   .drawn = d_drawn.data(),
                   .positions = d_positions.data(),
                   .position_offset = 1,
                   .table = d_table.data(),
                   .table_type = TypeOf<T>(),
                   .vocabulary_begin = kBegin,
                   .vocabulary_rows = kRows,
                   .position_table = with_positions ? d_places.data() : nullptr,
                   .num_positions = kPositions,
                   .x = x.data()},
                  stream_.get());
    ASSERT_TRUE(launched.ok()) << launched;
    const std::vector<float> got = FromDevice(x);
    for (size_t r = 0; r < ids.size(); ++r) {
      const int64_t word = (ids[r] < 0 ? drawn[-1 - ids[r]] : ids[r]) - kBegin;
      const int64_t position = positions[r] + 1;
      for (int64_t i = 0; i < width; ++i) {
        float want = 0.0f;
        if (positions[r] >= 0) {
          if (word >= 0 && word < kRows) want += ToFloat(table[word * width + i]);
          if (with_positions && position < kPositions) want += places[position * width + i];
        }
        ASSERT_EQ(got[r * width + i], want) << "row " << r << " element " << i;
      }
    }
    for (int64_t i = 0; i < width; ++i) EXPECT_EQ(got[ids.size() * width + i], 77.0f);
  }
};

// The plan of a step lies in pinned memory: the kernel takes ids and positions from there and
// copies all of it to the device.
TEST_F(EmbedGpuTest, FetchesAPlanFromPinnedMemory) {
  constexpr int64_t kRows = 300, kWidth = 768, kWords = 40;
  constexpr int64_t kBytes = 3 * kRows * sizeof(int32_t) + 16 * 1000;
  auto pinned = PinnedBuffer<std::byte>::Create(kBytes);
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  for (int64_t i = 0; i < kBytes; ++i) pinned->data()[i] = static_cast<std::byte>(i * 7 + i / 256);
  auto* const ids = reinterpret_cast<int32_t*>(pinned->data());
  int32_t* const positions = ids + kRows;
  for (int32_t r = 0; r < kRows; ++r) {
    ids[r] = r % 3 == 0 ? -1 - r % 2 : r * 11 % kWords;
    positions[r] = r % 7 - 1;
  }
  const std::vector<int32_t> drawn = {5, 17};
  const auto table = Convert<BFloat16>(RandomFloats(kWords * kWidth, 1));
  const auto d_drawn = OnDevice(drawn);
  const auto d_table = OnDevice(table);
  const auto copy = OnDevice(std::vector<std::byte>(kBytes + 16));
  const auto x = OnDevice(std::vector<float>(kRows * kWidth));
  const absl::Status launched =
      CudaEmbed({.rows = kRows,
                 .width = kWidth,
                 .ids = ids,
                 .drawn = d_drawn.data(),
                 .positions = positions,
                 .table = d_table.data(),
                 .vocabulary_rows = kWords,
                 .x = x.data(),
                 .fetch = {.from = pinned->data(), .to = copy.data(), .bytes = kBytes}},
                stream_.get());
  ASSERT_TRUE(launched.ok()) << launched;
  const std::vector<float> got = FromDevice(x);
  for (int64_t r = 0; r < kRows; ++r) {
    const int64_t word = ids[r] < 0 ? drawn[-1 - ids[r]] : ids[r];
    for (int64_t i = 0; i < kWidth; ++i) {
      const float want = positions[r] < 0 ? 0.0f : ToFloat(table[word * kWidth + i]);
      ASSERT_EQ(got[r * kWidth + i], want) << "row " << r << " element " << i;
    }
  }
  const std::vector<std::byte> fetched = FromDevice(copy);
  EXPECT_EQ(std::memcmp(fetched.data(), pinned->data(), kBytes), 0);
  EXPECT_EQ(fetched[kBytes], std::byte{0});  // and nothing behind it
}

// What the sanitizers run.
TEST_F(EmbedGpuTest, AFewSmallShapes) {
  Check<float>(7, true);
  Check<BFloat16>(768, true);
}

TEST_F(EmbedGpuTest, AddsTokenAndPositionRows) {
  for (int64_t width : {1, 7, 8, 12, 768, 2560, 7170}) {
    for (bool with_positions : {true, false}) {
      Check<float>(width, with_positions);
      Check<BFloat16>(width, with_positions);
    }
  }
}

}  // namespace
}  // namespace hanlin
