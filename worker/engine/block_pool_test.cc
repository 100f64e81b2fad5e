// Free, used and idle blocks.
#include "worker/engine/block_pool.h"

#include <random>
#include <set>

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;

TEST(BlockPool, HandsOutEveryBlockOnceAndThenNone) {
  BlockPool pool(3);
  std::set<int32_t> blocks;
  for (int i = 0; i < 3; ++i) blocks.insert(*pool.Allocate());
  EXPECT_THAT(blocks, ElementsAre(0, 1, 2));
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  EXPECT_EQ(pool.used(), 3);
  EXPECT_EQ(pool.available(), 0);
}

TEST(BlockPool, BlockIsFreeWhenTheLastUserReleasesIt) {
  BlockPool pool(1);
  const int32_t block = *pool.Allocate();
  pool.AddReference(block);
  pool.Release(block);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  pool.Release(block);
  EXPECT_EQ(pool.Allocate(), block);
}

TEST(BlockPool, EvictsTheBlockThatWasReleasedTheLongestAgo) {
  BlockPool pool(3);
  std::vector<int32_t> evicted;
  pool.set_on_evict([&](int32_t block) { evicted.push_back(block); });
  std::vector<int32_t> blocks;
  for (int i = 0; i < 3; ++i) {
    blocks.push_back(*pool.Allocate());
    pool.SetCached(blocks.back());
  }
  pool.Release(blocks[1]);
  pool.Release(blocks[0]);
  pool.Release(blocks[2]);
  EXPECT_EQ(pool.used(), 0);
  // A use makes it the newest again.
  pool.AddReference(blocks[1]);
  pool.Release(blocks[1]);
  for (int i = 0; i < 3; ++i) pool.Allocate();
  EXPECT_THAT(evicted, ElementsAre(blocks[0], blocks[2], blocks[1]));
}

TEST(BlockPool, PrefersFreeBlocksOverCachedOnes) {
  BlockPool pool(2);
  const int32_t cached = *pool.Allocate();
  pool.SetCached(cached);
  pool.Release(cached);
  EXPECT_NE(pool.Allocate(), cached);
}

TEST(BlockPool, EvictedBlockIsNoLongerCached) {
  BlockPool pool(1);
  pool.SetCached(*pool.Allocate());
  pool.Release(0);
  pool.Allocate();
  int evictions = 0;
  pool.set_on_evict([&](int32_t) { ++evictions; });
  pool.Release(0);
  pool.Allocate();
  EXPECT_EQ(evictions, 0);
}

TEST(BlockPool, CountsStayRightUnderRandomUse) {
  constexpr int32_t kBlocks = 8;
  BlockPool pool(kBlocks);
  std::vector<int32_t> references(kBlocks, 0);
  std::vector<bool> cached(kBlocks, false);
  pool.set_on_evict([&](int32_t block) { cached[block] = false; });
  std::mt19937 random(1);
  for (int step = 0; step < 20000; ++step) {
    const int32_t block = random() % kBlocks;
    switch (random() % 4) {
      case 0:
        if (const auto got = pool.Allocate()) {
          ASSERT_EQ(references[*got], 0);
          references[*got] = 1;
        }
        break;
      case 1:
        if (references[block] > 0 || cached[block]) {
          pool.AddReference(block);
          ++references[block];
        }
        break;
      case 2:
        if (references[block] > 0) {
          pool.Release(block);
          --references[block];
        }
        break;
      case 3:
        if (references[block] > 0) {
          pool.SetCached(block);
          cached[block] = true;
        }
        break;
    }
    const int used =
        static_cast<int>(std::ranges::count_if(references, [](int r) { return r > 0; }));
    ASSERT_EQ(pool.used(), used);
  }
}

}  // namespace
}  // namespace hanlin
