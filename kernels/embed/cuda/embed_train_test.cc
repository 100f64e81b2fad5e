// Embedding for training on the GPU against the CPU kernels: shards, frequent ids, both types.
#include "kernels/embed/cuda/embed_train.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"
#include "kernels/embed/cpu/embed_train.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::RelativeError;
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

  // By ids into a shard of the vocabulary, or by positions.
  template <typename T>
  void CompareBackward(int64_t width, bool by_position) {
    SCOPED_TRACE(::testing::Message() << width << " columns of " << sizeof(T) << " bytes, "
                                      << (by_position ? "positions" : "ids"));
    const std::vector<int32_t>& keys = by_position ? positions_ : ids_;
    const int64_t begin = by_position ? 0 : kBegin, size = by_position ? kPositions : kSize;
    std::vector<int32_t> order(kRows);
    OrderRows(keys, by_position ? kPositions : kVocabulary, order.data());
    const auto dout = Convert<T>(RandomFloats(kRows * width, 3));
    const auto d_keys = OnDevice(keys), d_order = OnDevice(order);
    const auto d_dout = OnDevice(dout);
    const auto dtable = OnDevice(std::vector<float>(size * width, 1.0f));
    ASSERT_TRUE(CudaEmbedBackward({.type = TypeOf<T>(),
                                   .rows = kRows,
                                   .width = width,
                                   .ids = d_keys.data(),
                                   .order = d_order.data(),
                                   .begin = begin,
                                   .size = size,
                                   .dout = d_dout.data(),
                                   .dtable = dtable.data()},
                                  stream_.get())
                    .ok());
    std::vector<float> want_table(kSize * width, 1.0f), want_places(kPositions * width, 1.0f);
    ThreadPool pool(1);
    EmbedBackward({kRows, width, ids_.data(), positions_.data(), kBegin, kSize},
                  ToFloats(dout).data(), want_table.data(), want_places.data(), pool);
    const std::vector<float>& want = by_position ? want_places : want_table;
    const std::vector<float> got = FromDevice(dtable);
    EXPECT_LE(RelativeError(got, want), 1e-6);
  }

  static constexpr int64_t kRows = 400;
  std::vector<int32_t> ids_, positions_;
};

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
    for (const bool by_position : {false, true}) {
      CompareBackward<float>(width, by_position);
      CompareBackward<BFloat16>(width, by_position);
    }
  }
}

}  // namespace
}  // namespace hanlin
