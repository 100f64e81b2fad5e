// Golden vocab.txt folders, BERT's text rules by example, typed special tokens, and lists that are
// no vocabulary.
#include "tokenizer_svc/core/wordpiece/wordpiece_tokenizer.h"

#include <string>

#include "common/io/file.h"
#include "common/testing/testing.h"
#include "tokenizer_svc/core/stream_decoder.h"
#include "tokenizer_svc/core/testing/golden_tokenizer.h"

namespace hanlin {
namespace {

using ::hanlin::testing::GoldenCases;
using ::hanlin::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(WordPieceTokenizerTest, GoldensAreExact) {
  int checked = 0;
  for (const std::string kind : {"tokenizers", "hf"}) {
    for (const std::string& folder : GoldenCases(kind)) {
      if (!FileExists(folder + "/vocab.txt")) continue;
      SCOPED_TRACE(folder);
      ASSERT_OK_AND_ASSIGN(const std::string vocab, ReadFile(folder + "/vocab.txt"));
      ASSERT_OK_AND_ASSIGN(auto tokenizer, MakeWordPieceTokenizer(vocab, {}));
      const std::string tokens = folder + "/expected_tokens.json";
      testing::CheckGoldenTokenizer(*tokenizer,
                                    FileExists(tokens) ? tokens : folder + "/expected.json");
      ++checked;
    }
  }
  EXPECT_GT(checked, 0);
}

constexpr std::string_view kVocab =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n床\n前\nab\n##c\n.\ncafe\n[\nsep\n]\n##d\n";

std::unique_ptr<Tokenizer> Make(const WordPieceOptions& options = {},
                                std::string_view vocab = kVocab) {
  auto tokenizer = MakeWordPieceTokenizer(vocab, options);
  EXPECT_OK(tokenizer);
  return *std::move(tokenizer);
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, std::string_view text) {
  auto encoding = tokenizer.Encode(text);
  EXPECT_OK(encoding);
  return encoding->ids;
}

TEST(WordPieceTokenizerTest, CutsWordsGreedilyAndGivesByteOffsets) {
  ASSERT_OK_AND_ASSIGN(const Encoding encoding, Make()->Encode("床前 ABCD. abx"));
  EXPECT_THAT(encoding.ids, ElementsAre(2, 5, 6, 7, 8, 14, 9, 1, 3));
  EXPECT_THAT(encoding.offsets,
              ElementsAre(Pair(0, 0), Pair(0, 3), Pair(3, 6), Pair(7, 9), Pair(9, 10), Pair(10, 11),
                          Pair(11, 12), Pair(13, 16), Pair(16, 16)));
}

TEST(WordPieceTokenizerTest, StripsAccentsAndCaseOnlyWhenAsked) {
  EXPECT_THAT(Ids(*Make(), "CAFÉ"), ElementsAre(2, 10, 3));
  WordPieceOptions cased;
  cased.text = {.lower_case = false, .strip_accents = false};
  EXPECT_THAT(Ids(*Make(cased), "CAFÉ cafe"), ElementsAre(2, 1, 10, 3));
}

TEST(WordPieceTokenizerTest, ControlCharactersVanishAndWhiteSpaceSeparates) {
  const std::string text(
      "a\0b\xE2\x80\x8B\xEF\xBF\xBD\xE3\x80\x80"
      "ab\xC2\xA0"
      "ab",
      18);
  EXPECT_THAT(Ids(*Make(), text), ElementsAre(2, 7, 7, 7, 3));
}

TEST(WordPieceTokenizerTest, WordsOverAHundredCharactersAreUnknown) {
  EXPECT_EQ(Ids(*Make(), "ab" + std::string(98, 'c')).size(), 101u);
  EXPECT_THAT(Ids(*Make(), "ab" + std::string(99, 'c')), ElementsAre(2, 1, 3));
}

TEST(WordPieceTokenizerTest, PromptsEndWithoutSepAndCannotTypeSpecialTokens) {
  ASSERT_OK_AND_ASSIGN(const Encoding whole, Make()->Encode("床[SEP]前"));
  EXPECT_THAT(whole.ids, ElementsAre(2, 5, 3, 6, 3));
  ASSERT_OK_AND_ASSIGN(const Encoding prompt, Make()->EncodePrompt("床[SEP]前"));
  EXPECT_THAT(prompt.ids, ElementsAre(2, 5, 11, 12, 13, 6));
  EXPECT_THAT(prompt.offsets[2], Pair(3, 4));
}

TEST(WordPieceTokenizerTest, ModelScopesRuleJoinsChinese) {
  const std::vector<int32_t> ids = {2, 5, 6, 7, 8, 9, 3};
  EXPECT_EQ(StreamDecoder::Decode(*Make()->decoder_spec(), ids), "床 前 abc.");
  WordPieceOptions options;
  options.join_chinese = true;
  EXPECT_EQ(StreamDecoder::Decode(*Make(options)->decoder_spec(), ids), "床前 abc.");
}

TEST(WordPieceTokenizerTest, BadTextIsRefusedWithItsByte) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Make()->Encode("床\xFF"), StatusIs(kInvalid, HasSubstr("byte 3 is 0xFF")));
  EXPECT_THAT(Make()->EncodePrompt(std::string_view("ab\0", 3)),
              StatusIs(kInvalid, HasSubstr("NUL character at byte 2")));
  EXPECT_THAT(Make()->Encode(std::string(Tokenizer::kMaxTextBytes + 1, 'a')),
              StatusIs(kInvalid, HasSubstr("want at most")));
}

TEST(WordPieceTokenizerTest, ListsThatAreNoVocabularyAreRefused) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(MakeWordPieceTokenizer("a\nb\n", {}), StatusIs(kInvalid, HasSubstr("[UNK]")));
  EXPECT_THAT(MakeWordPieceTokenizer("", {}), StatusIs(kInvalid, HasSubstr("0 tokens")));
  EXPECT_THAT(MakeWordPieceTokenizer("a\n\xFF\n", {}), StatusIs(kInvalid, HasSubstr("line 2")));
}

TEST(WordPieceTokenizerTest, CarriageReturnsOfTheFileAreNoPartOfTheTokens) {
  EXPECT_THAT(Ids(*Make({}, "[UNK]\r\n[CLS]\r\n[SEP]\r\nab\r\n"), "ab"), ElementsAre(1, 3, 2));
}

}  // namespace
}  // namespace hanlin
