// Embedding of a vocabulary shard and its gradient, which is exact: sums of rows.
#include "kernels/embed/cpu/embed_train.h"

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using testing::RandomFloats;

class EmbedTrainTest : public testing::KernelTest {};

TEST_P(EmbedTrainTest, ShardsAddUpToTheWholeTable) {
  ThreadPool pool(2);
  const int64_t width = 70;
  const auto table = RandomFloats(10 * width, 1), positions = RandomFloats(4 * width, 2);
  const int32_t ids[] = {0, 9, 3, 5, 5}, places[] = {0, 1, 2, 3, 0};
  std::vector<float> whole(5 * width), low(whole), high(whole);
  EmbedTrain({5, width, ids, places, 0, 10}, table.data(), positions.data(), whole.data(), pool);
  EmbedTrain({5, width, ids, places, 0, 5}, table.data(), positions.data(), low.data(), pool);
  EmbedTrain({5, width, ids, places, 5, 5}, table.data() + 5 * width, nullptr, high.data(), pool);
  for (int r = 0; r < 5; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      const float want = table[ids[r] * width + i] + positions[places[r] * width + i];
      EXPECT_EQ(whole[r * width + i], want);
      EXPECT_EQ(low[r * width + i] + high[r * width + i], want);
    }
  }
}

TEST_P(EmbedTrainTest, GradientsAddTheRowsOfEachIdAndPosition) {
  const int64_t width = 130, rows = 40;
  const auto dout = RandomFloats(rows * width, 1);
  std::vector<int32_t> ids(rows), places(rows);
  for (int r = 0; r < rows; ++r) {
    ids[r] = r * r % 7;
    places[r] = r % 5;
  }
  std::vector<float> dtable[2], dpositions[2];
  for (int i = 0; i < 2; ++i) {
    ThreadPool pool(i == 0 ? 1 : 4);
    dtable[i].assign(3 * width, 1.0f);
    dpositions[i].assign(5 * width, 0.0f);
    EmbedBackward({rows, width, ids.data(), places.data(), 2, 3}, dout.data(), dtable[i].data(),
                  dpositions[i].data(), pool);
  }
  EXPECT_TRUE(testing::SameBits(dtable[0].data(), dtable[1].data(), dtable[0].size()));
  EXPECT_TRUE(testing::SameBits(dpositions[0].data(), dpositions[1].data(), dpositions[0].size()));
  for (int64_t c = 0; c < width; ++c) {
    double id4 = 1, place3 = 0;
    for (int r = 0; r < rows; ++r) {
      if (ids[r] == 4) id4 += dout[r * width + c];
      if (places[r] == 3) place3 += dout[r * width + c];
    }
    EXPECT_NEAR(dtable[0][2 * width + c], id4, 1e-5);
    EXPECT_NEAR(dpositions[0][3 * width + c], place3, 1e-5);
  }
}

INSTANTIATE_KERNEL_TEST(EmbedTrainTest);

}  // namespace
}  // namespace hanlin
