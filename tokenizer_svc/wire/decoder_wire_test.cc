// The spec survives the wire, and a peer's nonsense does not become a spec.
#include "tokenizer_svc/wire/decoder_wire.h"

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

DecoderSpec FullSpec() {
  DecoderSpec spec;
  spec.kind = DecoderSpec::Kind::kText;
  spec.pieces = {" 你", "\xE4", "<sep>", ""};
  spec.attributes = {0, DecoderSpec::kByte, DecoderSpec::kSpecial, DecoderSpec::kAbsent};
  spec.start_pieces = {"你", "\xE4", "", ""};
  spec.start_rule = DecoderSpec::StartRule::kUntilText;
  spec.strip_left = std::string(1, ' ');
  spec.strip_left_count = 2;
  spec.clean_up_spaces = true;
  spec.join_chinese = true;
  return spec;
}

TEST(DecoderWireTest, EveryFieldSurvives) {
  const std::string bytes = DecoderSpecToProto(FullSpec()).SerializeAsString();
  v1::DecoderSpec message;
  ASSERT_TRUE(message.ParseFromString(bytes));
  ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, DecoderSpecFromProto(message));
  EXPECT_EQ(spec, FullSpec());

  DecoderSpec suffix;
  suffix.kind = DecoderSpec::Kind::kSuffix;
  suffix.suffix = "</w>";
  suffix.pieces = {"a</w>"};
  suffix.attributes = {0};
  ASSERT_OK_AND_ASSIGN(const DecoderSpec back, DecoderSpecFromProto(DecoderSpecToProto(suffix)));
  EXPECT_EQ(back, suffix);
}

TEST(DecoderWireTest, MessagesThatAreNoSpecAreRefused) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(DecoderSpecFromProto(v1::DecoderSpec()), StatusIs(kInvalid, HasSubstr("kind")));
  v1::DecoderSpec message = DecoderSpecToProto(FullSpec());
  message.set_kind(static_cast<v1::DecoderKind>(257));
  EXPECT_THAT(DecoderSpecFromProto(message), StatusIs(kInvalid, HasSubstr("257")));
  message = DecoderSpecToProto(FullSpec());
  message.mutable_attributes()->pop_back();
  EXPECT_THAT(DecoderSpecFromProto(message), StatusIs(kInvalid, HasSubstr("3 attributes")));
  message = DecoderSpecToProto(FullSpec());
  message.set_start_rule(static_cast<v1::DecoderStartRule>(9));
  EXPECT_THAT(DecoderSpecFromProto(message), StatusIs(kInvalid, HasSubstr("start rule 9")));
}

TEST(DecoderWireTest, SpecsThatCannotDecodeAreRefused) {
  const std::pair<void (*)(DecoderSpec*), const char*> cases[] = {
      {[](DecoderSpec* spec) { spec->start_pieces.pop_back(); }, "3 start pieces, want 4"},
      {[](DecoderSpec* spec) { spec->start_rule = DecoderSpec::StartRule::kNone; },
       "4 start pieces, want 0"},
      {[](DecoderSpec* spec) { spec->suffix = "</w>"; }, "suffix '</w>' does not fit"},
      {[](DecoderSpec* spec) { spec->strip_left = "ab"; }, "strip_left is not one character"},
      {[](DecoderSpec* spec) { spec->pieces[1] = "ab"; }, "id 1 is a byte, but its piece has 2"},
      {[](DecoderSpec* spec) { spec->pieces[0].pop_back(); }, "the piece of id 0 is not UTF-8"},
      {[](DecoderSpec* spec) { spec->start_pieces[2].push_back('\xFF'); },
       "the piece of id 2 is not UTF-8"},
  };
  for (const auto& [spoil, message] : cases) {
    DecoderSpec spec = FullSpec();
    spoil(&spec);
    EXPECT_THAT(spec.Validate(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  }
}

}  // namespace
}  // namespace hanlin
