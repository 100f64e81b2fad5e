// Streamed stop strings against a plain search of the whole text.
#include "tokenizer_svc/core/stop_matcher.h"

#include <random>

#include "common/testing/testing.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

StopMatcher Make(const std::vector<std::string>& stops, bool include = false) {
  auto matcher = StopMatcher::Create(stops, include);
  EXPECT_OK(matcher);
  return *std::move(matcher);
}

// The definition: the match that ends first, of those the longest, of equal stops the first.
std::optional<StopMatcher::Match> Search(const std::string& text,
                                         const std::vector<std::string>& stops) {
  std::optional<StopMatcher::Match> best;
  for (size_t i = 0; i < stops.size(); ++i) {
    const size_t begin = text.find(stops[i]);
    if (begin == std::string::npos) continue;
    const StopMatcher::Match match{i, begin, begin + stops[i].size()};
    if (!best || match.end < best->end || (match.end == best->end && match.begin < best->begin)) {
      best = match;
    }
  }
  return best;
}

std::string RandomCharacters(size_t max_length, std::mt19937& random) {
  static const std::vector<std::string> kAlphabet = {"a", "b", "你", "佡",
                                                     "\n"};  // 你 and 佡 share bytes
  std::string text;
  for (size_t n = random() % (max_length + 1); n > 0; --n)
    text += kAlphabet[random() % kAlphabet.size()];
  return text;
}

TEST(StopMatcherTest, StreamedEqualsUnaryForRandomStopsAndSplits) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) {
      while (stop.empty()) stop = RandomCharacters(4, random);
    }
    const bool include = random() % 2 == 0;
    StopMatcher matcher = Make(stops, include);
    std::string text, out;
    while (text.size() < 24) {
      const std::string chunk = RandomCharacters(5, random);
      const std::string ready = matcher.Push(chunk);
      ASSERT_EQ(ValidUtf8Prefix(ready), ready.size());
      text += chunk;
      out += ready;
    }
    out += matcher.Flush();
    const auto want = Search(text, stops);
    ASSERT_EQ(matcher.match().has_value(), want.has_value()) << text;
    if (want) {
      ASSERT_EQ(matcher.match()->stop, want->stop) << text;
      ASSERT_EQ(matcher.match()->begin, want->begin) << text;
      ASSERT_EQ(matcher.match()->end, want->end) << text;
    }
    ASSERT_EQ(out, want ? text.substr(0, include ? want->end : want->begin) : text);
  }
}

TEST(StopMatcherTest, WithholdsOnlyAProperPrefixOfAStop) {
  StopMatcher matcher = Make({"。\n", "作者"});
  EXPECT_EQ(matcher.Push("明月"), "明月");
  EXPECT_EQ(matcher.Push("光。"), "光");
  EXPECT_EQ(matcher.Push("作"), "。");
  EXPECT_EQ(matcher.Push("品"), "作品");
  EXPECT_EQ(matcher.Push("。\n后文"), "");
  EXPECT_EQ(matcher.match()->stop, 0u);
  EXPECT_EQ(matcher.Push("后文"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, WithoutStopsEverythingPassesAtOnce) {
  StopMatcher matcher = Make({});
  EXPECT_EQ(matcher.Push("床前明月光"), "床前明月光");
  EXPECT_FALSE(matcher.match().has_value());
}

TEST(StopMatcherTest, RefusesStopsThatCannotBeMeant) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(StopMatcher::Create({"a", ""}), StatusIs(kInvalid, HasSubstr("stop string 1")));
  EXPECT_THAT(StopMatcher::Create({"a\xFF"}), StatusIs(kInvalid, HasSubstr("0xFF")));
  EXPECT_THAT(StopMatcher::Create({std::string(1025, 'a')}), StatusIs(kInvalid, HasSubstr("1025")));
  EXPECT_THAT(StopMatcher::Create(std::vector<std::string>(65, "a")),
              StatusIs(kInvalid, HasSubstr("65")));
}

}  // namespace
}  // namespace hanlin
