// See golden_tokenizer.h.
#include "tokenizer_svc/core/testing/golden_tokenizer.h"

#include <nlohmann/json.hpp>
#include <random>

#include "common/io/file.h"
#include "common/testing/testing.h"
#include "tokenizer_svc/core/stream_decoder.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin::testing {
namespace {

using nlohmann::json;
using Offsets = std::vector<std::pair<uint32_t, uint32_t>>;

// Code-point offsets of `text` as byte offsets.
Offsets ByteOffsets(const std::string& text, const json& offsets) {
  std::vector<uint32_t> byte_of;  // By code point; the end of the text included.
  for (uint32_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xC0) != 0x80) byte_of.push_back(i);
  }
  byte_of.push_back(static_cast<uint32_t>(text.size()));
  Offsets out;
  for (const json& pair : offsets) {
    out.emplace_back(byte_of.at(pair[0].get<size_t>()), byte_of.at(pair[1].get<size_t>()));
  }
  return out;
}

// What Hugging Face makes of ids in which some run of bytes is not UTF-8: it voids the whole run,
// one U+FFFD a byte.
std::string WithVoidedRuns(const DecoderSpec& spec, const std::vector<int32_t>& ids) {
  std::string text, run;
  const auto end_run = [&] {
    if (ValidUtf8Prefix(run) == run.size()) {
      text += run;
    } else {
      for (size_t i = 0; i < run.size(); ++i) text += kReplacementCharacter;
    }
    run.clear();
  };
  for (const int32_t id : ids) {
    if (spec.TokenBytes(id).empty()) continue;
    if (!spec.Has(id, DecoderSpec::kByte)) end_run();
    (spec.Has(id, DecoderSpec::kByte) ? run : text) += spec.pieces[id];
  }
  end_run();
  return text;
}

void CheckDecode(const DecoderSpec& spec, const json& item) {
  const auto ids = item["ids"].get<std::vector<int32_t>>();
  const auto want = item["decoded"].get<std::string>();
  const std::string got = StreamDecoder::Decode(spec, ids);
  // Design law 2 differs from the reference in broken byte runs, and only there.
  if (got != want && spec.kind == DecoderSpec::Kind::kText && WithVoidedRuns(spec, ids) == want) {
    EXPECT_NE(got.find(kReplacementCharacter), std::string::npos) << item.dump();
    return;
  }
  EXPECT_EQ(got, want) << item.dump();
}

void CheckEncode(const Tokenizer& tokenizer, const json& item) {
  const auto text = item["text"].get<std::string>();
  auto encoding = tokenizer.Encode(text);
  ASSERT_OK(encoding);
  ASSERT_EQ(encoding->ids, item["ids"].get<std::vector<int32_t>>()) << item.dump();
  ASSERT_EQ(encoding->offsets.size(), encoding->ids.size());
  if (item.contains("offsets")) {
    EXPECT_EQ(encoding->offsets, ByteOffsets(text, item["offsets"])) << item.dump();
  }
}

}  // namespace

void CheckGoldenTokenizer(const Tokenizer& tokenizer, const std::string& path) {
  auto contents = ReadFile(path);
  ASSERT_OK(contents);
  const json expected = json::parse(*contents, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(expected.is_structured()) << path;
  const DecoderSpec& spec = *tokenizer.decoder_spec();
  const json& encode = expected.is_array() ? expected : expected["encode"];
  ASSERT_FALSE(encode.empty());
  for (const json& item : encode) {
    CheckEncode(tokenizer, item);
    CheckDecode(spec, item);
    if (::testing::Test::HasFailure()) return;  // One example is enough to read.
  }
  if (expected.is_object() && expected.contains("decode_random")) {
    for (const json& item : expected["decode_random"]) CheckDecode(spec, item);
  }
  CheckStreamDecoderLaw(spec, 200);
}

void CheckStreamDecoderLaw(const DecoderSpec& spec, int rounds) {
  std::mt19937 random(7);
  auto shared = std::make_shared<const DecoderSpec>(spec);
  for (int round = 0; round < rounds; ++round) {
    std::vector<int32_t> ids(random() % 40);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % (spec.pieces.size() + 8)) - 4;
    auto decoder = StreamDecoder::Create(shared);
    ASSERT_OK(decoder);
    std::string text;
    for (size_t i = 0; i <= ids.size(); ++i) {
      const std::string chunk = i < ids.size() ? decoder->Push(ids[i]) : decoder->Flush();
      ASSERT_EQ(ValidUtf8Prefix(chunk), chunk.size());
      text += chunk;
    }
    ASSERT_EQ(text, StreamDecoder::Decode(spec, ids));
  }
}

}  // namespace hanlin::testing
