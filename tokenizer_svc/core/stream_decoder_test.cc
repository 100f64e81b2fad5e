// The law of the stream decoder: for all ids and chunkings the pushes and the flush concatenate to
// Decode, every chunk is valid UTF-8; and each kind of spec by example. The golden tests of each
// tokenizer check Decode itself.
#include "tokenizer_svc/core/stream_decoder.h"

#include <random>

#include "common/testing/testing.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;
using Kind = DecoderSpec::Kind;
using StartRule = DecoderSpec::StartRule;

DecoderSpec Spec(Kind kind, std::vector<std::string> pieces) {
  DecoderSpec spec;
  spec.kind = kind;
  spec.attributes.resize(pieces.size());
  spec.pieces = std::move(pieces);
  if (kind == Kind::kSuffix) spec.suffix = "</w>";
  return spec;
}

DecoderSpec BytesSpec() { return Spec(Kind::kBytes, {"\xE4\xBD", "\xA0", "a", "好", "\xF0\x9F"}); }

DecoderSpec FallbackSpec() {
  DecoderSpec spec = Spec(Kind::kText, {"\xE4", "\xBD", "\xA0", "b", "好", "<sep>", ""});
  spec.attributes = {2, 2, 2, 0, 0, DecoderSpec::kSpecial, DecoderSpec::kAbsent};
  return spec;
}

DecoderSpec MetaspaceSpec(StartRule rule) {
  DecoderSpec spec = Spec(Kind::kText, {" ", " 你", "好", " b", "</s>"});
  spec.attributes[4] = DecoderSpec::kSpecial;
  spec.start_pieces = {"", "你", "好", "b", ""};
  spec.start_rule = rule;
  return spec;
}

DecoderSpec SuffixSpec() { return Spec(Kind::kSuffix, {"a", "b</w>", "</w>", "x</w>y</w>", "好"}); }

DecoderSpec WordPieceSpec(bool join_chinese) {
  DecoderSpec spec =
      Spec(Kind::kText, {" 床", " 前", " do", " n", "t", " '", "s", " .", " gpt", "3"});
  spec.start_pieces = {"床", "前", "do", "n", "t", "'", "s", ".", "gpt", "3"};
  spec.start_rule = StartRule::kFirstPiece;
  spec.clean_up_spaces = true;
  spec.join_chinese = join_chinese;
  return spec;
}

DecoderSpec LlamaSpec() {
  DecoderSpec spec = Spec(Kind::kText, {" ", " b", "c", "\xE4"});
  spec.attributes[3] = DecoderSpec::kByte;
  spec.strip_left = " ";
  spec.strip_left_count = 2;
  return spec;
}

StreamDecoder Make(DecoderSpec spec) {
  auto decoder = StreamDecoder::Create(std::make_shared<const DecoderSpec>(std::move(spec)));
  EXPECT_OK(decoder);
  return *std::move(decoder);
}

std::string Decode(const DecoderSpec& spec, std::vector<int32_t> ids) {
  return StreamDecoder::Decode(spec, ids);
}

class StreamDecoderLawTest : public ::testing::TestWithParam<DecoderSpec> {};

std::vector<int32_t> RandomIds(const DecoderSpec& spec, std::mt19937& random) {
  std::vector<int32_t> ids(random() % 12);
  // One id past the table and one before it: padding rows of the vocabulary decode to nothing.
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % (spec.pieces.size() + 2)) - 1;
  return ids;
}

TEST_P(StreamDecoderLawTest, PushesAndFlushConcatenateToDecode) {
  const DecoderSpec& spec = GetParam();
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    const std::vector<int32_t> ids = RandomIds(spec, random);
    StreamDecoder decoder = Make(spec);
    std::string text;
    for (size_t i = 0; i <= ids.size(); ++i) {
      const std::string chunk = i < ids.size() ? decoder.Push(ids[i]) : decoder.Flush();
      ASSERT_EQ(ValidUtf8Prefix(chunk), chunk.size());
      text += chunk;
    }
    ASSERT_EQ(text, StreamDecoder::Decode(spec, ids));
  }
}

// What was pushed is final: every prefix of the stream is a prefix of every text that the ids can
// still become.
TEST_P(StreamDecoderLawTest, PushedTextIsNeverTakenBack) {
  const DecoderSpec& spec = GetParam();
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> ids = RandomIds(spec, random);
    StreamDecoder decoder = Make(spec);
    std::string pushed;
    for (const int32_t id : ids) pushed += decoder.Push(id);
    for (const int32_t id : RandomIds(spec, random)) ids.push_back(id);
    ASSERT_TRUE(StreamDecoder::Decode(spec, ids).starts_with(pushed));
  }
}

TEST_P(StreamDecoderLawTest, SeedOfNothingChangesNothing) {
  const DecoderSpec& spec = GetParam();
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    const std::vector<int32_t> ids = RandomIds(spec, random);
    StreamDecoder decoder = Make(spec);
    decoder.Seed({});
    std::string text;
    for (const int32_t id : ids) text += decoder.Push(id);
    ASSERT_EQ(text + decoder.Flush(), StreamDecoder::Decode(spec, ids));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, StreamDecoderLawTest,
                         ::testing::Values(BytesSpec(), FallbackSpec(),
                                           MetaspaceSpec(StartRule::kFirstPiece),
                                           MetaspaceSpec(StartRule::kUntilText), SuffixSpec(),
                                           WordPieceSpec(false), WordPieceSpec(true), LlamaSpec()));

TEST(StreamDecoderTest, BytesBecomeTextAsSoonAsACharacterIsComplete) {
  StreamDecoder decoder = Make(BytesSpec());
  EXPECT_EQ(decoder.Push(0), "");
  EXPECT_EQ(decoder.Push(1), "你");
  EXPECT_EQ(decoder.Push(0), "");
  EXPECT_EQ(decoder.Push(2), "�a");
  EXPECT_EQ(decoder.Push(4), "");
  EXPECT_EQ(decoder.Flush(), "�");
}

TEST(StreamDecoderTest, ByteFallbackGivesOneReplacementPerStrayByte) {
  EXPECT_EQ(Decode(FallbackSpec(), {0, 1, 2, 3}), "你b");
  EXPECT_EQ(Decode(FallbackSpec(), {0, 1, 3, 0, 1, 2}), "��b你");
  EXPECT_EQ(Decode(FallbackSpec(), {2, 0, 1, 2, 0}), "�你�");
}

TEST(StreamDecoderTest, SpecialAbsentAndUnknownIdsDecodeToNothing) {
  EXPECT_EQ(Decode(FallbackSpec(), {5, 4, 6, 99, -1, 4}), "好好");
  EXPECT_EQ(Decode(FallbackSpec(), {0, 5, 1, 6, 2}), "你");  // they do not break a byte run either
}

TEST(StreamDecoderTest, StartRulesDifferInWhenTheyEnd) {
  EXPECT_EQ(Decode(MetaspaceSpec(StartRule::kFirstPiece), {4, 0, 1}), " 你");
  EXPECT_EQ(Decode(MetaspaceSpec(StartRule::kUntilText), {4, 0, 1, 1}), "你 你");
}

TEST(StreamDecoderTest, SuffixIsASpaceExceptInTheLastPiece) {
  EXPECT_EQ(Decode(SuffixSpec(), {0, 1, 0, 1}), "ab ab");
  EXPECT_EQ(Decode(SuffixSpec(), {3, 3}), "x y xy");
}

TEST(StreamDecoderTest, WordPieceCleansUpAndJoinsChinese) {
  EXPECT_EQ(Decode(WordPieceSpec(false), {0, 1, 8, 9, 7}), "床 前 gpt3.");
  EXPECT_EQ(Decode(WordPieceSpec(true), {0, 1, 8, 9, 7, 0, 1}), "床前 gpt3. 床前");
  EXPECT_EQ(Decode(WordPieceSpec(false), {2, 5, 3}), "do'n");
}

TEST(StreamDecoderTest, StripLeftTakesOnlyTheFirstSpaces) {
  EXPECT_EQ(Decode(LlamaSpec(), {1, 1}), "b b");
  EXPECT_EQ(Decode(LlamaSpec(), {0, 0, 0, 1}), "  b");
}

struct SeedCase {
  DecoderSpec spec;
  std::vector<int32_t> prompt, ids;
  std::string text;
};

class SeedTest : public ::testing::TestWithParam<SeedCase> {};

TEST_P(SeedTest, TextIsTheContinuationOnly) {
  StreamDecoder decoder = Make(GetParam().spec);
  decoder.Seed(GetParam().prompt);
  std::string text;
  for (const int32_t id : GetParam().ids) text += decoder.Push(id);
  EXPECT_EQ(text + decoder.Flush(), GetParam().text);
}

INSTANTIATE_TEST_SUITE_P(
    All, SeedTest,
    ::testing::Values(
        SeedCase{MetaspaceSpec(StartRule::kFirstPiece), {1}, {1}, " 你"},
        SeedCase{MetaspaceSpec(StartRule::kFirstPiece), {4}, {1}, "你"},  // no text before it
        SeedCase{BytesSpec(), {2, 0}, {1, 2}, "你a"},  // completes the prompt's character
        SeedCase{BytesSpec(), {2, 0}, {2}, "a"},  // the prompt's broken byte stays the prompt's
        SeedCase{FallbackSpec(), {0, 1}, {3}, "b"}, SeedCase{FallbackSpec(), {0, 1}, {}, ""},
        SeedCase{SuffixSpec(), {0, 1}, {0}, " a"},
        SeedCase{WordPieceSpec(true), {8}, {9, 8}, "3 gpt"},
        SeedCase{WordPieceSpec(true), {0}, {1, 0}, "前床"},
        SeedCase{WordPieceSpec(true), {0}, {}, ""},
        SeedCase{WordPieceSpec(true), {0}, {8, 0}, " gpt 床"},
        SeedCase{LlamaSpec(), {2}, {1}, " b"}));

TEST(DecoderSpecTest, TablesThatDisagreeAreRefused) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  DecoderSpec spec = FallbackSpec();
  spec.attributes.pop_back();
  EXPECT_THAT(spec.Validate(), StatusIs(kInvalid, HasSubstr("6 attributes for 7 pieces")));
  spec = FallbackSpec();
  spec.pieces[3] = "\xFF";
  EXPECT_THAT(spec.Validate(), StatusIs(kInvalid, HasSubstr("id 3")));
  spec = FallbackSpec();
  spec.pieces[0] = "ab";
  EXPECT_THAT(spec.Validate(), StatusIs(kInvalid, HasSubstr("id 0 is a byte")));
  spec = MetaspaceSpec(StartRule::kFirstPiece);
  spec.start_pieces.clear();
  EXPECT_THAT(spec.Validate(), StatusIs(kInvalid, HasSubstr("0 start pieces, want 5")));
  spec = SuffixSpec();
  spec.suffix.clear();
  EXPECT_THAT(spec.Validate(), StatusIs(kInvalid, HasSubstr("suffix")));
  spec = LlamaSpec();
  spec.strip_left = "ab";
  EXPECT_THAT(spec.Validate(), StatusIs(kInvalid, HasSubstr("strip_left")));
  EXPECT_THAT(StreamDecoder::Create(nullptr), StatusIs(kInvalid, HasSubstr("no decoder spec")));
}

}  // namespace
}  // namespace hanlin
