// The rules of every section by small examples, worked out by hand from the rules of Hugging Face's
// tokenizers, and files that are no tokenizer: each is refused with the place and the name.
#include <string>

#include "common/testing/testing.h"
#include "tokenizer_svc/core/json/json_file.h"
#include "tokenizer_svc/core/json/json_tokenizer.h"
#include "tokenizer_svc/core/stream_decoder.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using testing::StatusIs;

constexpr char kModel[] =
    R"({"type": "WordPiece", "unk_token": "?", "vocab": {"?": 0, "a": 1, "##b": 2,
    "ab": 3, "c": 4, "é": 5, " ": 6, "▁a": 7, "Ġc": 8, "1": 9, ",": 10, "床": 11, "e": 12}})";

// A file with the given sections; the rest is absent.
std::string File(const std::string& sections, const std::string& model = kModel) {
  return "{" + sections + (sections.empty() ? "" : ", ") + "\"model\": " + model + "}";
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& file) {
  return MakeJsonTokenizer(file, nullptr);
}

Encoding Encode(const std::string& file, std::string_view text) {
  auto tokenizer = Load(file);
  EXPECT_OK(tokenizer);
  if (!tokenizer.ok()) return {};
  auto encoding = (*tokenizer)->Encode(text);
  EXPECT_OK(encoding);
  return encoding.ok() ? *encoding : Encoding();
}

std::string Decode(const std::string& file, std::vector<int32_t> ids) {
  auto tokenizer = Load(file);
  EXPECT_OK(tokenizer);
  if (!tokenizer.ok()) return "";
  return StreamDecoder::Decode(*(*tokenizer)->decoder_spec(), ids);
}

TEST(NormalizerTest, OffsetsPointIntoTheOriginalText) {
  const std::string file = File(
      R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"},
         {"type": "Lowercase"}]}, "pre_tokenizer": {"type": "WhitespaceSplit"})");
  const Encoding encoding = Encode(file, "É AB");
  EXPECT_THAT(encoding.ids, ElementsAre(12, 3));
  EXPECT_THAT(encoding.offsets, ElementsAre(Pair(0, 2), Pair(3, 5)));
}

TEST(NormalizerTest, ComposesAcrossCharacters) {
  const Encoding encoding = Encode(File(R"("normalizer": {"type": "NFC"})"), "e\u0301");
  EXPECT_THAT(encoding.ids, ElementsAre(5));
}

TEST(NormalizerTest, StripReplaceAndPrependWork) {
  EXPECT_THAT(
      Encode(File(R"("normalizer": {"type": "Strip", "strip_left": true, "strip_right": true})"),
             " \n ab　")
          .offsets,
      ElementsAre(Pair(3, 5)));
  EXPECT_THAT(
      Encode(
          File(R"("normalizer": {"type": "Replace", "pattern": {"Regex": "x+"}, "content": "a"})"),
          "xxx")
          .offsets,
      ElementsAre(Pair(2, 3)));  // Added characters take the span of the last one replaced.
  EXPECT_THAT(Encode(File(R"("normalizer": {"type": "Prepend", "prepend": "▁"})"), "a").ids,
              ElementsAre(7));
}

TEST(NormalizerTest, BertNormalizerIsolatesIdeographsAndCleansText) {
  const std::string file = File(
      R"("normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"})");
  EXPECT_THAT(Encode(file, "A\u200D床c,\tÉ").ids, ElementsAre(1, 11, 4, 10, 12));
}

TEST(PreTokenizerTest, BehaviorsCutDifferently) {
  const auto ids = [](const std::string& behavior) {
    return Encode(
               File(R"("pre_tokenizer": {"type": "Punctuation", "behavior": ")" + behavior + "\"}"),
               "a,,c")
        .offsets;
  };
  EXPECT_THAT(ids("Isolated"), ElementsAre(Pair(0, 1), Pair(1, 2), Pair(2, 3), Pair(3, 4)));
  EXPECT_THAT(ids("Removed"), ElementsAre(Pair(0, 1), Pair(3, 4)));
  EXPECT_THAT(ids("Contiguous"), ElementsAre(Pair(0, 1), Pair(1, 3), Pair(3, 4)));
  EXPECT_THAT(ids("MergedWithPrevious"), ElementsAre(Pair(0, 2), Pair(2, 3), Pair(3, 4)));
  EXPECT_THAT(ids("MergedWithNext"), ElementsAre(Pair(0, 1), Pair(1, 2), Pair(2, 4)));
}

TEST(PreTokenizerTest, MetaspacePrependsByScheme) {
  const auto ids = [](const std::string& scheme) {
    return Encode(
               File(
                   R"("added_tokens": [{"id": 4, "content": "c"}], "pre_tokenizer": {"type": "Metaspace",
                       "replacement": "▁", "prepend_scheme": ")" +
                   scheme + "\"}"),
               "aca a")
        .ids;
  };
  EXPECT_THAT(ids("always"), ElementsAre(7, 4, 7, 7));
  EXPECT_THAT(ids("first"), ElementsAre(7, 4, 1, 7));
  EXPECT_THAT(ids("never"), ElementsAre(1, 4, 1, 7));
}

TEST(PreTokenizerTest, ByteLevelAddsASpaceAndTrimsItsOffset) {
  const std::string file = File(R"("pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true},
              "post_processor": {"type": "ByteLevel", "trim_offsets": true, "add_prefix_space": true})");
  const Encoding encoding = Encode(file, "c c");
  EXPECT_THAT(encoding.ids, ElementsAre(8, 8));
  EXPECT_THAT(encoding.offsets, ElementsAre(Pair(0, 1), Pair(2, 3)));
}

TEST(AddedTokenTest, FlagsAreHonoured) {
  const std::string file = File(
      R"("added_tokens": [{"id": 20, "content": "<s>", "special": true, "lstrip": true, "rstrip": true},
         {"id": 21, "content": "ca", "single_word": true}, {"id": 22, "content": "Xy", "normalized": true}],
         "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "WhitespaceSplit"})");
  Encoding encoding = Encode(file, "a  <s> a");
  EXPECT_THAT(encoding.ids, ElementsAre(1, 20, 1));
  EXPECT_THAT(encoding.offsets, ElementsAre(Pair(0, 1), Pair(1, 7), Pair(7, 8)));
  EXPECT_THAT(Encode(file, "ca").ids, ElementsAre(21));
  EXPECT_THAT(Encode(file, "cab").ids, ElementsAre(0));
  EXPECT_THAT(Encode(file, "aXYa").ids, ElementsAre(1, 22, 1));
}

TEST(AddedTokenTest, PromptsNeverHoldSpecialTokens) {
  const std::string file = File(
      R"("added_tokens": [{"id": 20, "content": "ac", "special": true}], "pre_tokenizer": {"type": "Split",
         "pattern": {"String": "a"}, "behavior": "Isolated", "invert": false})");
  auto tokenizer = Load(file);
  ASSERT_OK(tokenizer);
  EXPECT_THAT((*tokenizer)->Encode("ac")->ids, ElementsAre(20));
  EXPECT_THAT((*tokenizer)->EncodePrompt("ac")->ids, ElementsAre(1, 4));
}

TEST(PostProcessorTest, PromptsEndOpen) {
  const std::string file = File(R"("post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": "[SEP]", "type_id": 0}}], "pair": [],
      "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [4], "tokens": ["c"]},
                         "[SEP]": {"id": "[SEP]", "ids": [9], "tokens": ["1"]}}})");
  auto tokenizer = Load(file);
  ASSERT_OK(tokenizer);
  EXPECT_THAT((*tokenizer)->Encode("a")->ids, ElementsAre(4, 1, 9));
  EXPECT_THAT((*tokenizer)->EncodePrompt("a")->ids, ElementsAre(4, 1));
  EXPECT_THAT((*tokenizer)->EncodePrompt("a")->offsets, ElementsAre(Pair(0, 0), Pair(0, 1)));
}

constexpr char kBpe[] =
    R"({"type": "BPE", "unk_token": "?", "byte_fallback": true, "vocab": {"?": 0, "a": 1, "b": 2,
    "ab": 3, "<0xE5>": 4, "<0xBA>": 5, "<0x8A>": 6, "aba": 7}, "merges": ["a b", ["ab", "a"]]})";

TEST(BpeTest, MergesByRankThenLeftmost) {
  EXPECT_THAT(Encode(File("", kBpe), "ababa").ids, ElementsAre(3, 7));
}

TEST(BpeTest, BytesOfACharacterAllSpanIt) {
  const Encoding encoding = Encode(File("", kBpe), "a床ü");
  EXPECT_THAT(encoding.ids, ElementsAre(1, 4, 5, 6, 0));
  EXPECT_THAT(encoding.offsets,
              ElementsAre(Pair(0, 1), Pair(1, 4), Pair(1, 4), Pair(1, 4), Pair(4, 6)));
}

TEST(BpeTest, LongWordsAreNotQuadratic) {
  std::string text;
  while (text.size() < (size_t{1} << 19)) text += "ab";
  EXPECT_EQ(Encode(File("", kBpe), text).ids.size(), text.size() / 2);
}

TEST(UnigramTest, TakesTheBestPathAndFusesUnknowns) {
  const std::string model =
      R"({"type": "Unigram", "unk_id": 0, "vocab": [["?", 0], ["a", -1], ["b", -1],
      ["ab", -1.5], ["ba", -4]]})";
  const Encoding encoding = Encode(File("", model), "abaxya");
  EXPECT_THAT(encoding.ids, ElementsAre(3, 1, 0, 1));
  EXPECT_THAT(encoding.offsets, ElementsAre(Pair(0, 2), Pair(2, 3), Pair(3, 5), Pair(5, 6)));
}

TEST(UnigramTest, WithoutUnknownPieceAnUnknownCharacterIsAnError) {
  auto tokenizer = Load(File("", R"({"type": "Unigram", "vocab": [["a", -1]]})"));
  ASSERT_OK(tokenizer);
  EXPECT_THAT((*tokenizer)->Encode("x"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("unk_id")));
}

TEST(DecoderSectionTest, EachKindDecodes) {
  EXPECT_EQ(Decode(File(""), {1, 4}), "a c");
  EXPECT_EQ(Decode(File(R"("decoder": {"type": "WordPiece"})"), {1, 2, 10, 4}), "ab, c");
  EXPECT_EQ(Decode(File(R"("decoder": {"type": "Metaspace", "replacement": "▁"})"), {7, 7}), "a a");
  EXPECT_EQ(Decode(File(R"("decoder": {"type": "ByteLevel"})"), {4, 8}), "c c");
  EXPECT_EQ(Decode(File(R"("decoder": {"type": "BPEDecoder", "suffix": "b"})"), {3, 3}), "a a");
  const std::string llama = R"("decoder": {"type": "Sequence", "decoders": [{"type": "Replace",
      "pattern": {"String": "a"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";
  EXPECT_EQ(Decode(File(llama, kBpe), {1, 1, 4, 5, 6, 2, 5}), " 床b\uFFFD");
}

TEST(DecoderSectionTest, IdsWithoutTokenDecodeToNothing) {
  const std::string model = R"({"type": "WordPiece", "unk_token": "?", "vocab": {"?": 0, "a": 5}})";
  EXPECT_EQ(Decode(File("", model), {3, 5, 4, 99, -1}), "a");
}

struct Refused {
  std::string file;
  std::string message;
};
class RefusedTest : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedTest, NamesWhatAndWhere) {
  EXPECT_THAT(Load(GetParam().file),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().message)));
}

std::string Bpe(const std::string& members) { return R"({"type": "BPE", )" + members + "}"; }

INSTANTIATE_TEST_SUITE_P(
    Files, RefusedTest,
    ::testing::Values(
        Refused{"", "not JSON"}, Refused{"{", "not JSON"}, Refused{"[]", "want an object"},
        Refused{"{\"model\": \"\xFF\"}", "not JSON"}, Refused{"{}", "\"model\" is missing"},
        Refused{File("", R"({"type": "WordLevel", "vocab": {}})"), "model \"WordLevel\""},
        Refused{File(R"("normalizer": {"type": "Precompiled"})"),
                "normalizer: normalizer \"Precompiled\""},
        Refused{
            File(
                R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "X"}]})"),
            "normalizer.normalizers[1]: normalizer \"X\""},
        Refused{File(R"("pre_tokenizer": {"type": "UnicodeScripts"})"),
                "pre-tokenizer \"UnicodeScripts\""},
        Refused{File(R"("pre_tokenizer": {"type": "Punctuation", "behavior": "Odd"})"),
                "behavior \"Odd\""},
        Refused{File(R"("pre_tokenizer": {"type": "Metaspace", "replacement": "ab"})"),
                "want one character"},
        Refused{
            File(
                R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Removed"})"),
            "pre_tokenizer.pattern"},
        Refused{
            File(R"("normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"})"),
            "empty"},
        Refused{File(R"("post_processor": {"type": "Odd"})"), "post-processor \"Odd\""},
        Refused{
            File(
                R"("post_processor": {"type": "BertProcessing", "cls": ["c", 99], "sep": ["c", 4]})"),
            "cls"},
        Refused{File(R"("decoder": {"type": "CTC"})"), "decoder \"CTC\""},
        Refused{
            File(
                R"("decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "WordPiece"}]})"),
            "decoder.decoders[1]: decoder \"WordPiece\""},
        Refused{File(R"("decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"},
                        {"type": "Strip", "content": " ", "start": 0, "stop": 1}]})"),
                "stop 1"},
        Refused{
            File(
                R"("pre_tokenizer": {"type": "Metaspace", "replacement": "_", "add_prefix_space": false,
                        "prepend_scheme": "always"})"),
            "add_prefix_space is false but prepend_scheme is \"always\""},
        Refused{
            File(R"("post_processor": {"type": "BertProcessing", "cls": ["c"], "sep": ["c", 4]})"),
            "want a token and its id"},
        Refused{File(R"("normalizer": {"type": "Prepend", "prepend": 3})"),
                "\"prepend\" is number, want a string"},
        Refused{File(R"("added_tokens": [{"id": 9, "content": ""}])"), "content is empty"},
        Refused{File(R"("added_tokens": [{"id": 2, "content": "a"}])"),
                "has id 2, but 1 in the vocabulary"},
        Refused{File(R"("added_tokens": [{"id": 2, "content": "new"}])"), "belongs to \"##b\""},
        Refused{File(R"("added_tokens": [{"id": 30, "content": "x"}, {"id": 30, "content": "y"}])"),
                "twice"},
        Refused{File(R"("added_tokens": [{"id": 2000000000, "content": "x"}])"), "want less than"},
        Refused{File("", Bpe(R"("vocab": {"a": 0, "a": 1}, "merges": [])")), "\"a\" occurs twice"},
        Refused{File("", Bpe(R"("vocab": {"a": 0, "b": 0}, "merges": [])")), "id 0 belongs to"},
        Refused{File("", Bpe(R"("vocab": {"a": -1}, "merges": [])")), "-1"},
        Refused{File("", Bpe(R"("vocab": {"a": 16777215}, "merges": [])")), "16777215"},
        Refused{File("", Bpe(R"("vocab": {"a": 0, "b": 1}, "merges": ["a b"])")),
                "needs piece \"ab\""},
        Refused{File("", Bpe(R"("vocab": {"a": 0}, "merges": ["a c"])")),
                "model.merges[0]: merge \"a c\""},
        Refused{File("", Bpe(R"("vocab": {"a": 0}, "merges": ["a b c"])")), "want two pieces"},
        Refused{File("", Bpe(R"("vocab": {"a": 0}, "merges": [], "unk_token": "u")")),
                "unk_token \"u\""},
        Refused{File("", Bpe(R"("vocab": {"a": 0}, "merges": [], "dropout": 0.1)")), "dropout"},
        Refused{File("", R"({"type": "Unigram", "vocab": [["a", 1e999]]})"), "JSON"},
        Refused{File("", R"({"type": "Unigram", "vocab": [["a", null]]})"),
                "want a piece and its score"},
        Refused{File("", R"({"type": "Unigram", "vocab": [["a", 0], ["a", 1]]})"), "ids 0 and 1"},
        Refused{File("", R"({"type": "Unigram", "unk_id": 1, "vocab": [["a", 0]]})"),
                "unk_id is 1"},
        Refused{std::string(100000, '['), "nested deeper"},
        Refused{File(R"("x": )" + std::string(40, '[') + std::string(40, ']')), "nested deeper"}));

TEST(HostileFileTest, TextsThatGrowWithoutBoundAreRefused) {
  const std::string many(1000, 'a');
  std::string steps;
  for (int i = 0; i < 3; ++i) {
    steps += R"({"type": "Replace", "pattern": {"String": "a"}, "content": ")" + many + "\"},";
  }
  steps.pop_back();
  auto tokenizer =
      Load(File(R"("normalizer": {"type": "Sequence", "normalizers": [)" + steps + "]}"));
  ASSERT_OK(tokenizer);
  EXPECT_THAT((*tokenizer)->Encode("a"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("bytes")));
}

TEST(HostileFileTest, RegularExpressionsThatBacktrackGiveUp) {
  auto tokenizer = Load(File(R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"},
                                 "behavior": "Removed"})"));
  ASSERT_OK(tokenizer);
  EXPECT_THAT((*tokenizer)->Encode(std::string(60, 'a') + "b"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("regular expression")));
}

TEST(HostileFileTest, HugeFilesAreRefusedUnread) {
  EXPECT_THAT(Load(std::string(kMaxJsonBytes + 1, ' ')),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("67108864")));
}

}  // namespace
}  // namespace hanlin
