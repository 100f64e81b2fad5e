// Prefixes found again.
#include "worker/engine/prefix_cache.h"

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Ids = std::vector<int32_t>;

class PrefixCacheTest : public ::testing::Test {
 protected:
  // Puts the full blocks of `ids` into the cache and releases them.
  std::vector<int32_t> Cache(const Ids& ids) {
    std::vector<int32_t> blocks;
    PrefixCache::Chain chain = PrefixCache::kRoot;
    for (size_t i = 0; i + 2 <= ids.size(); i += 2) {
      blocks.push_back(*pool_.Allocate());
      chain = cache_.Insert(chain, std::span(ids).subspan(i, 2), blocks.back());
    }
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) pool_.Release(*block);
    return blocks;
  }
  std::vector<int32_t> Match(const Ids& ids) {
    const PrefixCache::Prefix prefix = cache_.Match(ids);
    for (const int32_t block : prefix.blocks) pool_.Release(block);
    return prefix.blocks;
  }

  BlockPool pool_{4};
  PrefixCache cache_{&pool_, 2};
};

TEST_F(PrefixCacheTest, FindsTheLongestPrefixOfFullBlocks) {
  const std::vector<int32_t> blocks = Cache({1, 2, 3, 4});
  EXPECT_THAT(Match({1, 2, 3, 4, 5}), ElementsAre(blocks[0], blocks[1]));
  EXPECT_THAT(Match({1, 2, 3}), ElementsAre(blocks[0]));
  EXPECT_THAT(Match({1, 2, 9, 4}), ElementsAre(blocks[0]));
  EXPECT_THAT(Match({1}), IsEmpty());
}

TEST_F(PrefixCacheTest, SameIdsBehindAnotherPrefixAreAnotherBlock) {
  Cache({1, 2, 3, 4});
  EXPECT_THAT(Match({3, 4}), IsEmpty());
}

TEST_F(PrefixCacheTest, MatchedBlocksAreInUse) {
  Cache({1, 2, 3, 4});
  const PrefixCache::Prefix prefix = cache_.Match(Ids{1, 2, 3, 4});
  EXPECT_EQ(pool_.used(), 2);
  pool_.Allocate();
  pool_.Allocate();
  EXPECT_EQ(pool_.Allocate(), std::nullopt) << "a block in use was evicted";
}

TEST_F(PrefixCacheTest, TheFirstBlockOfEqualOnesStaysKnown) {
  const std::vector<int32_t> first = Cache({1, 2});
  const std::vector<int32_t> second = Cache({1, 2, 3, 4});
  EXPECT_THAT(Match({1, 2, 3, 4}), ElementsAre(first[0], second[1]));
  EXPECT_EQ(cache_.size(), 2u);
}

TEST_F(PrefixCacheTest, EvictionForgetsTheEndOfAPrefixFirst) {
  const std::vector<int32_t> blocks = Cache({1, 2, 3, 4, 5, 6, 7, 8});
  pool_.Allocate();
  EXPECT_THAT(Match({1, 2, 3, 4, 5, 6, 7, 8}), ElementsAre(blocks[0], blocks[1], blocks[2]));
  EXPECT_EQ(cache_.size(), 3u);
}

TEST_F(PrefixCacheTest, WhatHungOnAnEvictedBlockIsNotFoundBehindItsSuccessor) {
  const std::vector<int32_t> blocks = Cache({1, 2, 3, 4});
  // Use the end, so that the beginning is evicted first.
  pool_.AddReference(blocks[1]);
  std::vector<int32_t> taken;
  while (const auto block = pool_.Allocate()) taken.push_back(*block);
  EXPECT_THAT(Match({1, 2, 3, 4}), IsEmpty());
  // The beginning comes back under another name.
  cache_.Insert(PrefixCache::kRoot, Ids{1, 2}, taken[0]);
  EXPECT_THAT(Match({1, 2, 3, 4}), ElementsAre(taken[0]));
}

}  // namespace
}  // namespace hanlin
