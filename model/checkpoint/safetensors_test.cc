// The safetensors reader: what a good file gives, and every way a header can lie.
#include "model/checkpoint/safetensors.h"

#include "common/testing/testing.h"
#include "model/checkpoint/test_files.h"

namespace hanlin {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::LittleEndian;
using testing::Safetensors;
using testing::StatusIs;
using testing::TempDir;

absl::StatusOr<StoredTensors> ReadBytes(const std::string& bytes) {
  TempDir folder;
  return ReadSafetensors(folder.Write("model.safetensors", bytes));
}

TEST(Safetensors, ListsTensorsAndSkipsMetadata) {
  ASSERT_OK_AND_ASSIGN(
      const StoredTensors tensors,
      ReadBytes(Safetensors(
          R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},)"
          R"("a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})",
          std::string("abcdefghijkl"))));
  ASSERT_EQ(tensors.size(), 2u);
  const StoredTensor& b = tensors.at("b");
  EXPECT_EQ(b.dtype, DType::kFloat32);
  EXPECT_THAT(b.shape, ElementsAre(2, 1));
  EXPECT_EQ(*b.data, 'e');
  EXPECT_EQ(tensors.at("a").dtype, DType::kBFloat16);
}

struct Lie {
  std::string header, message;
};
class LyingHeaderTest : public ::testing::TestWithParam<Lie> {};

TEST_P(LyingHeaderTest, IsRefusedByName) {
  EXPECT_THAT(ReadBytes(Safetensors(GetParam().header, std::string(16, '\0'))),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("model.safetensors"), HasSubstr(GetParam().message))));
}

INSTANTIATE_TEST_SUITE_P(
    Headers, LyingHeaderTest,
    ::testing::Values(
        Lie{R"([1])", "want an object"}, Lie{R"({"w":)", "not valid JSON"},
        Lie{R"({"w":3})", "tensor w"},
        Lie{R"({"w":{"shape":[4],"data_offsets":[0,16]}})", "no dtype"},
        Lie{R"({"w":{"dtype":"F8","shape":[4],"data_offsets":[0,16]}})", "F8"},
        Lie{R"({"w":{"dtype":"F32","shape":4,"data_offsets":[0,16]}})", "shape"},
        Lie{R"({"w":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})", "shape"},
        Lie{R"({"w":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}})", "shape"},
        Lie{R"({"w":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16]}})", "shape"},
        Lie{R"({"w":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,16]}})",
            "shape"},
        Lie{R"({"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})",
            "overflows"},
        Lie{R"({"w":{"dtype":"F32","shape":[4],"data_offsets":[0]}})", "data_offsets"},
        Lie{R"({"w":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}})", "[16, 0]"},
        Lie{R"({"w":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}})", "16 bytes of data"},
        Lie{R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}})", "want 12"},
        Lie{R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"v":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
            "w and v overlap"},
        Lie{std::string(4000000, '['), "levels deep"}));

TEST(Safetensors, RefusesHeaderLengthsThatTheFileDoesNotHave) {
  constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
  EXPECT_THAT(ReadBytes(""), StatusIs(kDataLoss, HasSubstr("0 bytes")));
  EXPECT_THAT(ReadBytes("short"), StatusIs(kDataLoss, HasSubstr("5 bytes")));
  EXPECT_THAT(ReadBytes(LittleEndian(3, 8) + "{}"),
              StatusIs(kDataLoss, HasSubstr("header length is 3")));
  EXPECT_THAT(ReadBytes(LittleEndian(~uint64_t{0}, 8) + "{}"),
              StatusIs(kDataLoss, HasSubstr("header length")));
  EXPECT_THAT(ReadBytes(LittleEndian(uint64_t{9} << 20, 8) + std::string(9 << 20, ' ')),
              StatusIs(kDataLoss, HasSubstr("8388608")));
}

}  // namespace
}  // namespace hanlin
