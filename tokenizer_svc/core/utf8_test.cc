// UTF-8 at its edges: every boundary of the table of well-formed sequences.
#include "tokenizer_svc/core/utf8.h"

#include "common/testing/testing.h"

namespace hanlin {
namespace {

TEST(Utf8Test, EveryScalarValueSurvivesTheRoundTrip) {
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    AppendUtf8(code, &text);
    const Utf8Step step = NextUtf8(text);
    ASSERT_EQ(step.kind, Utf8Step::Kind::kCharacter) << static_cast<uint32_t>(code);
    ASSERT_EQ(step.code, code);
    ASSERT_EQ(step.length, text.size());
    for (size_t cut = 1; cut < text.size(); ++cut) {
      ASSERT_EQ(NextUtf8(text.substr(0, cut)).kind, Utf8Step::Kind::kUnfinished);
    }
  }
}

struct BrokenCase {
  std::string bytes;
  int length;  // Of the maximal broken part.
};

class Utf8BrokenTest : public ::testing::TestWithParam<BrokenCase> {};

TEST_P(Utf8BrokenTest, IsRefusedWithItsMaximalPart) {
  const Utf8Step step = NextUtf8(GetParam().bytes);
  EXPECT_EQ(step.kind, Utf8Step::Kind::kBroken);
  EXPECT_EQ(step.length, GetParam().length);
  EXPECT_EQ(ValidUtf8Prefix("ab" + GetParam().bytes), 2u);
}

INSTANTIATE_TEST_SUITE_P(All, Utf8BrokenTest,
                         ::testing::Values(BrokenCase{"\x80", 1}, BrokenCase{"\xC0\x80", 1},
                                           BrokenCase{"\xC1\xBF", 1},
                                           BrokenCase{"\xE0\x9F\xBF", 1},      // overlong
                                           BrokenCase{"\xED\xA0\x80", 1},      // a surrogate
                                           BrokenCase{"\xF0\x8F\xBF\xBF", 1},  // overlong
                                           BrokenCase{"\xF4\x90\x80\x80", 1},  // past U+10FFFF
                                           BrokenCase{"\xF5\x80\x80\x80", 1}, BrokenCase{"\xFF", 1},
                                           BrokenCase{"\xE4\xBD\x41", 2},
                                           BrokenCase{"\xF0\x9F\x98\x41", 3}));

}  // namespace
}  // namespace hanlin
