// Golden sentencepiece models: ids, decoded text, random ids; and files that lie.
#include "tokenizer_svc/core/sentencepiece/sentencepiece_tokenizer.h"

#include <google/protobuf/any.pb.h>
#include <grpc/grpc.h>

#include <random>

#include "common/io/file.h"
#include "common/testing/testing.h"
#include "tokenizer_svc/core/sentencepiece/settings.h"
#include "tokenizer_svc/core/testing/golden_tokenizer.h"

namespace hanlin {
namespace {

using ::hanlin::testing::GoldenCases;
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

std::vector<std::string> SentencePieceCases() {
  std::vector<std::string> cases;
  for (const std::string& folder : GoldenCases("tokenizers")) {
    if (FileExists(folder + "/tokenizer.model")) cases.push_back(folder);
  }
  return cases;
}

std::string ModelBytes(const std::string& folder) {
  auto bytes = ReadFile(folder + "/tokenizer.model");
  EXPECT_OK(bytes);
  return *std::move(bytes);
}

TEST(SentencePieceTokenizerTest, GoldensAreExact) {
  ASSERT_FALSE(SentencePieceCases().empty());
  for (const std::string& folder : SentencePieceCases()) {
    SCOPED_TRACE(folder);
    ASSERT_OK_AND_ASSIGN(auto tokenizer, MakeSentencePieceTokenizer(ModelBytes(folder)));
    testing::CheckGoldenTokenizer(*tokenizer, folder + "/expected.json");
  }
}

TEST(SentencePieceTokenizerTest, OffsetsAreWholeCharactersInOrder) {
  for (const std::string& folder : SentencePieceCases()) {
    SCOPED_TRACE(folder);
    ASSERT_OK_AND_ASSIGN(auto tokenizer, MakeSentencePieceTokenizer(ModelBytes(folder)));
    const std::string text = "明月几时有…😀 abc踟蹰";
    ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer->Encode(text));
    ASSERT_EQ(encoding.offsets.size(), encoding.ids.size());
    uint32_t reached = 0;
    for (const auto& [begin, end] : encoding.offsets) {
      EXPECT_LE(begin, reached);  // no byte of this text is skipped but the space
      EXPECT_LE(begin, end);
      const auto starts_character = [&](uint32_t at) {
        return at == text.size() || (text[at] & 0xC0) != 0x80;
      };
      EXPECT_TRUE(starts_character(begin) && starts_character(end)) << begin << " " << end;
      reached = std::max(reached, end);
      if (reached < text.size() && text[reached] == ' ') ++reached;
    }
    EXPECT_EQ(reached, text.size());
  }
}

// A damaged file is an error or a working tokenizer, never a crash (run under AddressSanitizer).
TEST(SentencePieceTokenizerTest, TruncatedAndFlippedFilesDoNoHarm) {
  std::mt19937 random(1);
  for (const std::string& folder : SentencePieceCases()) {
    const std::string whole = ModelBytes(folder);
    for (int i = 0; i < 40; ++i) {
      std::string bytes = whole;
      // The settings stand at the end of the file, so half of the flips aim there.
      const size_t from = i % 2 == 0 ? 0 : bytes.size() - std::min<size_t>(bytes.size(), 4000);
      const size_t at = from + random() % (bytes.size() - from);
      if (i % 4 < 2) {
        bytes.resize(at);
      } else {
        bytes[at] = static_cast<char>(random());
      }
      auto tokenizer = MakeSentencePieceTokenizer(bytes);
      if (tokenizer.ok()) (void)(*tokenizer)->Encode("ａｂｃ 明月…");
    }
  }
}

std::string CharsMapModel(const std::string& map) {
  const std::string normalizer = std::string("\x12") +
                                 static_cast<char>(0x80 | (map.size() & 0x7F)) +
                                 static_cast<char>(map.size() >> 7) + map;
  return std::string("\x1A") + static_cast<char>(0x80 | (normalizer.size() & 0x7F)) +
         static_cast<char>(normalizer.size() >> 7) + normalizer;
}

TEST(SentencePieceSettingsTest, CharacterMapThatLeavesItsArrayIsRefused) {
  std::string map("\x00\x04\x00\x00", 4);  // a trie of 1024 bytes
  map.append(1024, '\0').append("x").push_back('\0');
  EXPECT_OK(ReadSentencePieceSettings(CharsMapModel(map)));
  const auto kDataLoss = absl::StatusCode::kDataLoss;
  std::string far = map;
  far[4 + 8 + 2] = 0x7F;  // unit 2 steps beyond the array
  EXPECT_THAT(ReadSentencePieceSettings(CharsMapModel(far)),
              StatusIs(kDataLoss, HasSubstr("unit 2")));
  std::string value = map;
  value[4 + 12] = 2;  // unit 3 is a value behind the strings
  value[4 + 15] = static_cast<char>(0x80);
  EXPECT_THAT(ReadSentencePieceSettings(CharsMapModel(value)),
              StatusIs(kDataLoss, HasSubstr("unit 3")));
  map.back() = 'x';
  EXPECT_THAT(ReadSentencePieceSettings(CharsMapModel(map)), StatusIs(kDataLoss, HasSubstr("map")));
}

TEST(SentencePieceTokenizerTest, WhatCannotBeStreamedIsRefusedByName) {
  const std::string suffix("\x12\x03\xC0\x01\x01", 5);  // trainer_spec.treat_whitespace_as_suffix
  EXPECT_THAT(MakeSentencePieceTokenizer(suffix),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("treat_whitespace_as_suffix")));
  EXPECT_THAT(MakeSentencePieceTokenizer("no protobuf"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
  EXPECT_FALSE(MakeSentencePieceTokenizer("").ok());
}

// libsentencepiece carries a protobuf of its own; this binary holds ours as well (static gRPC) and
// still runs.
TEST(SentencePieceTokenizerTest, LivesBesideStaticGrpcAndProtobuf) {
  grpc_init();
  google::protobuf::Any any;
  EXPECT_TRUE(any.ParseFromString(""));
  const std::vector<std::string> cases = SentencePieceCases();
  ASSERT_FALSE(cases.empty());
  EXPECT_OK(MakeSentencePieceTokenizer(ModelBytes(cases.front())));
  grpc_shutdown();
}

}  // namespace
}  // namespace hanlin
