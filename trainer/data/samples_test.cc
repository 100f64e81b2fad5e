// The bytes of a cache of samples: what was written comes back, and what lies is refused.
#include "trainer/data/samples.h"

#include <cstring>

#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::testing::HasSubstr;
using testing::StatusIs;

TEST(SampleStoreTest, ACacheThatLiesIsRefused) {
  SampleStore store;
  store.Add(std::vector<int32_t>{1, 2, 3}, std::vector<int32_t>{4}, true);
  store.Add(std::vector<int32_t>{5}, {}, false);
  const std::string good = store.Serialize();
  ASSERT_EQ(SampleStore::Parse(good, 6).value().Serialize(), good);
  const auto refused = [&good](size_t at, uint64_t value, size_t bytes, const char* message) {
    std::string bad = good;
    std::memcpy(bad.data() + at, &value, bytes);
    EXPECT_THAT(SampleStore::Parse(bad, 6),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(message)));
  };
  // 16 bytes of magic, two counts, (target begin, end, has target) of two samples, five ids.
  refused(0, 'H', 1, "not a cache");
  refused(16, 3, 8, "for 3 samples and 5 ids");
  refused(16, ~uint64_t{0}, 8, "samples and 5 ids");
  refused(24, uint64_t{1} << 62, 8, "for 2 samples");
  refused(32, 9, 8, "outside its ids");   // its target begins behind its end
  refused(40, 2, 8, "outside its ids");   // it ends before its target begins
  refused(56, 3, 8, "outside its ids");   // the second begins within the first
  refused(64, 99, 8, "outside its ids");  // it ends behind the last id
  refused(good.size() - 4, 6, 4, "holds id 6, want [0, 6)");
  refused(good.size() - 20, ~uint64_t{0}, 4, "holds id -1");
  EXPECT_THAT(SampleStore::Parse("", 6), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("cache")));
}

}  // namespace
}  // namespace hanlin
