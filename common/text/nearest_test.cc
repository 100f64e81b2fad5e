// What counts as one edit, and which of several names wins.
#include "common/text/nearest.h"

#include <gtest/gtest.h>

namespace hanlin {
namespace {

TEST(NearestTest, CountsInsertionsDeletionsReplacementsAndSwaps) {
  const std::string_view names[] = {"model"};
  for (const std::string_view name : {"model", "modle", "mode", "modell", "nodel", "omdel"}) {
    EXPECT_EQ(Nearest(name, names, 1), "model") << name;
  }
  for (const std::string_view name : {"omdle", "mod", "modelled", "rodeo", ""}) {
    EXPECT_EQ(Nearest(name, names, 1), "") << name;
  }
  EXPECT_EQ(Nearest("omdle", names, 2), "model");
  EXPECT_EQ(Nearest("", names, 5), "model");
}

TEST(NearestTest, TheFewestEditsWinThenTheFirst) {
  const std::string_view names[] = {"max_queue", "max_queue_tokens", "rank", "bank"};
  EXPECT_EQ(Nearest("max_queue_token", names, 9), "max_queue_tokens");
  EXPECT_EQ(Nearest("max_queues", names, 9), "max_queue");
  EXPECT_EQ(Nearest("tank", names, 1), "rank");
  EXPECT_EQ(Nearest("rank", {}, 9), "");
}

}  // namespace
}  // namespace hanlin
