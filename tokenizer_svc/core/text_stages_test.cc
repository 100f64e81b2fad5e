// Each stage against the definition it streams: whatever the cuts, the concatenation is that of the
// whole text.
#include "tokenizer_svc/core/text_stages.h"

#include <random>

#include "common/testing/testing.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

// A whole text through `stage`, cut at random places.
template <typename Stage>
std::string RunInPieces(Stage stage, std::string_view text, std::mt19937& random) {
  std::string out;
  while (!text.empty()) {
    const size_t length = 1 + random() % std::min<size_t>(text.size(), 4);
    out += stage.Push(text.substr(0, length));
    text.remove_prefix(length);
  }
  return out += stage.Flush();
}

std::string RandomText(std::string_view alphabet, size_t max_length, std::mt19937& random) {
  std::string text(random() % (max_length + 1), ' ');
  for (char& c : text) c = alphabet[random() % alphabet.size()];
  return text;
}

std::string ReplaceAll(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

TEST(StreamReplacerTest, EqualsReplaceAllForRandomTextsAndCuts) {
  std::mt19937 random(1);
  for (const auto& [from, to] : {std::pair{" ' ", "'"}, {"aab", "b"}, {"aa", "x"}, {"a", ""}}) {
    for (int i = 0; i < 5000; ++i) {
      const std::string text = RandomText("aab ' ", 12, random);
      ASSERT_EQ(RunInPieces(StreamReplacer(from, to), text, random), ReplaceAll(text, from, to))
          << "'" << text << "'";
    }
  }
}

TEST(StreamReplacerTest, HoldsOnlyAProperPrefixOfThePattern) {
  StreamReplacer replacer(" n't", "n't");
  EXPECT_EQ(replacer.Push("do n"), "do");
  EXPECT_EQ(replacer.Push("o"), " no");
  EXPECT_EQ(replacer.Push(" n't"), "n't");
  EXPECT_EQ(replacer.Flush(), "");
}

std::string Assemble(Utf8Assembler::Broken broken, std::string_view bytes, std::mt19937& random) {
  Utf8Assembler assembler(broken);
  std::string out;
  while (!bytes.empty()) {
    const size_t length = 1 + random() % std::min<size_t>(bytes.size(), 5);
    std::string chunk;
    assembler.Push(bytes.substr(0, length), &chunk);
    EXPECT_EQ(ValidUtf8Prefix(chunk), chunk.size());
    out += chunk;
    bytes.remove_prefix(length);
  }
  assembler.Flush(&out);
  return out;
}

TEST(Utf8AssemblerTest, CountsReplacementsPerBrokenPartOrPerByte) {
  std::mt19937 random(2);
  const std::string bytes =
      "a\xE4\xBD"
      "b\xF0\x9F\x98\xE4\xBD\xA0\x80\xE4\xBD";
  EXPECT_EQ(Assemble(Utf8Assembler::Broken::kOnePerPart, bytes, random), "a�b�你��");
  EXPECT_EQ(Assemble(Utf8Assembler::Broken::kOnePerByte, bytes, random), "a��b���你���");
}

TEST(Utf8AssemblerTest, TheCutsDoNotMatter) {
  std::mt19937 random(3);
  for (int i = 0; i < 20000; ++i) {
    const std::string bytes = RandomText(
        "\xE4\xBD\xA0\xF0\x9F\x98\x80\xED\xA0"
        "a",
        12, random);
    for (const auto broken :
         {Utf8Assembler::Broken::kOnePerPart, Utf8Assembler::Broken::kOnePerByte}) {
      Utf8Assembler whole(broken);
      std::string want;
      whole.Push(bytes, &want);
      whole.Flush(&want);
      ASSERT_EQ(Assemble(broken, bytes, random), want);
    }
  }
}

struct JoinCase {
  std::string text, joined;
};

class ChineseSpaceJoinerTest : public ::testing::TestWithParam<JoinCase> {};

TEST_P(ChineseSpaceJoinerTest, EqualsModelScopesRuleForAllCuts) {
  std::mt19937 random(4);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(RunInPieces(ChineseSpaceJoiner(), GetParam().text, random), GetParam().joined);
  }
}

// Computed by the rule of modelscope/utils/chinese_utils.py.
INSTANTIATE_TEST_SUITE_P(
    All, ChineseSpaceJoinerTest,
    ::testing::Values(JoinCase{"", ""}, JoinCase{" ", ""}, JoinCase{"床 前 明 月", "床前明月"},
                      JoinCase{"我 爱 gpt 3 模 型 。", "我爱 gpt 3 模型。"},
                      JoinCase{"hello world", "hello world"}, JoinCase{"a  b", "a  b"},
                      JoinCase{"你  好", "你好"}, JoinCase{" 你 a ", "你 a"},
                      JoinCase{"你 , 好 ! x .", "你,好! x ."}, JoinCase{"  x \t\xE3\x80\x80 ", "x"},
                      JoinCase{"你a 好", "你a 好"}));

}  // namespace
}  // namespace hanlin
