// Embedding for training on the GPU against the CPU kernels: shards, frequent ids, both types.
#include "kernels/embed/cuda/embed_train.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"
#include "kernels/embed/cpu/embed_train.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::ToFloats;
using ::hanlin::testing::TypeOf;

TEST(EmbedTrainCudaTest, RefusesBadShapesBeforeAnyLaunch) {
  EXPECT_FALSE(CudaEmbedTrain({.rows = 0, .width = 8}, nullptr).ok());
  EXPECT_FALSE(CudaEmbedTrain({.rows = 1, .width = 12}, nullptr).ok());
  EXPECT_FALSE(CudaEmbedBackward({.rows = 1, .width = 0}, nullptr).ok());
}

TEST(EmbedTrainCudaTest, OrdersRowsByIdAndThenByRow) {
  const std::vector<int32_t> ids = {3, 0, 3, 7, 0, 3};
  std::vector<int32_t> order(ids.size());
  OrderRows(ids, 8, order.data());
  EXPECT_EQ(order, (std::vector<int32_t>{1, 4, 0, 2, 5, 3}));
}

class EmbedTrainGpuTest : public HopperTest {
 protected:
  static constexpr int32_t kVocabulary = 50, kPositions = 40, kBegin = 10, kSize = 25;

  // Half of the rows carry one id.
  EmbedTrainGpuTest() {
    for (int r = 0; r < kRows; ++r) {
      ids_.push_back(r % 2 == 0 ? 17 : r * r % kVocabulary);
      positions_.push_back(r % kPositions);
    }
  }

  template <typename T>
  void CompareForward(int64_t width, bool with_positions) {
    SCOPED_TRACE(::testing::Message() << width << " columns of " << sizeof(T) << " bytes");
    const auto table = Convert<T>(RandomFloats(kSize * width, 1));
    const std::vector<float> places = RandomFloats(kPositions * width, 2);
    const auto ids = OnDevice(ids_), positions = OnDevice(positions_);
    const auto d_table = OnDevice(table), out = OnDevice(std::vector<T>(kRows * width));
    const auto d_places = OnDevice(places);
    ASSERT_TRUE(CudaEmbedTrain({.type = TypeOf<T>(),
                                .rows = kRows,
                                .width = width,
                                .ids = ids.data(),
                                .positions = positions.data(),
                                .vocabulary_begin = kBegin,
                                .vocabulary_size = kSize,
                                .table = d_table.data(),
                                .position_table = with_positions ? d_places.data() : nullptr,
                                .out = out.data()},
                               stream_.get())
                    .ok());
    std::vector<float> want(kRows * width);
    ThreadPool pool(1);
    EmbedTrain({kRows, width, ids_.data(), positions_.data(), kBegin, kSize},
               ToFloats(table).data(), with_positions ? places.data() : nullptr, want.data(), pool);
    EXPECT_EQ(ToFloats(FromDevice(out)), ToFloats(Convert<T>(want)));
  }

  // What rows with these keys, all below `limit`, add to the part [begin, begin + size) of a table.
  template <typename T>
  void CompareBackward(int64_t width, const std::vector<int32_t>& keys, int32_t limit,
                       int64_t begin, int64_t size) {
    const auto rows = static_cast<int64_t>(keys.size());
    SCOPED_TRACE(::testing::Message() << rows << " rows of " << width << " columns of " << sizeof(T)
                                      << " bytes, " << limit << " keys");
    std::vector<int32_t> order(rows);
    OrderRows(keys, limit, order.data());
    // Multiples of 1/16, whose sums are exact in any order.
    std::vector<float> dout = RandomFloats(rows * width, 3);
    for (float& value : dout) value = std::nearbyint(value * 16.0f) / 16.0f;
    const auto d_keys = OnDevice(keys), d_order = OnDevice(order);
    const auto d_dout = OnDevice(Convert<T>(dout));
    const auto dtable = OnDevice(std::vector<float>(size * width, 1.0f));
    ASSERT_TRUE(CudaEmbedBackward({.type = TypeOf<T>(),
                                   .rows = rows,
                                   .width = width,
                                   .ids = d_keys.data(),
                                   .order = d_order.data(),
                                   .begin = begin,
                                   .size = size,
                                   .dout = d_dout.data(),
                                   .dtable = dtable.data()},
                                  stream_.get())
                    .ok());
    std::vector<float> want(size * width, 1.0f), unused(limit * width);
    ThreadPool pool(1);
    EmbedBackward({rows, width, keys.data(), keys.data(), begin, size}, dout.data(), want.data(),
                  unused.data(), pool);
    EXPECT_EQ(FromDevice(dtable), want);
  }

  static constexpr int64_t kRows = 400;
  std::vector<int32_t> ids_, positions_;
};

// What the sanitizers run.
TEST_F(EmbedTrainGpuTest, AFewSmallShapes) {
  CompareForward<BFloat16>(72, true);
  CompareBackward<BFloat16>(72, ids_, kVocabulary, kBegin, kSize);
  CompareBackward<float>(8, std::vector<int32_t>(513, 2), 3, 0, 3);
}

TEST_F(EmbedTrainGpuTest, ForwardMatchesTheCpu) {
  for (const int64_t width : {8, 64, 264, 768}) {
    for (const bool with_positions : {false, true}) {
      CompareForward<float>(width, with_positions);
      CompareForward<BFloat16>(width, with_positions);
    }
  }
}

TEST_F(EmbedTrainGpuTest, BackwardMatchesTheCpu) {
  for (const int64_t width : {8, 64, 264, 768}) {
    CompareBackward<float>(width, ids_, kVocabulary, kBegin, kSize);
    CompareBackward<BFloat16>(width, ids_, kVocabulary, kBegin, kSize);
    CompareBackward<float>(width, positions_, kPositions, 0, kPositions);
    CompareBackward<BFloat16>(width, positions_, kPositions, 0, kPositions);
  }
}

// Runs of equal keys that end before, at and behind the border of a block's 256 places.
TEST_F(EmbedTrainGpuTest, BackwardAddsRunsOfAnyLength) {
  for (const int run : {1, 2, 3, 63, 64, 65, 127, 255, 256, 257, 300, 512, 513, 1000, 3000}) {
    std::vector<int32_t> keys(3000);
    for (int r = 0; r < 3000; ++r) keys[r * 7 % 3000] = r / run;  // scattered
    const int32_t limit = 2999 / run + 1;
    CompareBackward<float>(72, keys, limit, 0, limit);
    CompareBackward<BFloat16>(72, keys, limit, 0, limit);
  }
  for (const int64_t rows : {1, 255, 256, 257, 512, 769}) {
    CompareBackward<float>(8, std::vector<int32_t>(rows, 2), 3, 0, 3);
    CompareBackward<BFloat16>(8, std::vector<int32_t>(rows, 2), 3, 1, 2);
    CompareBackward<BFloat16>(8, std::vector<int32_t>(rows, 2), 3, 0, 2);
  }
}

// One key has most of the rows: the same bits on every run.
TEST_F(EmbedTrainGpuTest, BackwardIsDeterministic) {
  constexpr int64_t kMany = 20000, kWidth = 128;
  std::vector<int32_t> keys(kMany), order(kMany);
  for (int64_t r = 0; r < kMany; ++r) keys[r] = r % 4 != 0 ? 5 : static_cast<int32_t>(r % 777);
  OrderRows(keys, 777, order.data());
  const auto d_keys = OnDevice(keys), d_order = OnDevice(order);
  const auto dout = OnDevice(RandomFloats(kMany * kWidth, 4));
  std::vector<float> first;
  for (int i = 0; i < 5; ++i) {
    const auto dtable = OnDevice(std::vector<float>(777 * kWidth));
    ASSERT_TRUE(CudaEmbedBackward({.type = ComputeType::kFloat32,
                                   .rows = kMany,
                                   .width = kWidth,
                                   .ids = d_keys.data(),
                                   .order = d_order.data(),
                                   .begin = 0,
                                   .size = 777,
                                   .dout = dout.data(),
                                   .dtable = dtable.data()},
                                  stream_.get())
                    .ok());
    if (i == 0) first = FromDevice(dtable);
    EXPECT_EQ(FromDevice(dtable), first);
  }
}

}  // namespace
}  // namespace hanlin
