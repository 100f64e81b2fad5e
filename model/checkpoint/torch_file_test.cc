// torch.save files of both formats: containers, dtypes, views; archives and storages that lie.
#include "model/checkpoint/torch_file.h"

#include "common/testing/testing.h"
#include "model/checkpoint/test_files.h"
#include "model/checkpoint/zip.h"

namespace hanlin {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::LittleEndian;
using testing::PickleWriter;
using testing::RawBytes;
using testing::StatusIs;
using testing::Storage;
using testing::TempDir;
using testing::TorchLegacy;
using testing::TorchZip;
using testing::Zip;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kRefused = absl::StatusCode::kFailedPrecondition;

absl::StatusOr<StoredTensors> ReadBytes(const std::string& bytes) {
  TempDir folder;
  return ReadTorchFile(folder.Write("weights.pt", bytes));
}

const std::string kFloats = RawBytes<float>({0, 1, 2, 3, 4, 5, 6, 7});

// {'w': tensor [2, 2] at offset 1, stored transposed}
PickleWriter& AddTensor(PickleWriter& writer) {
  return writer.Raw("}").String("w").Tensor("FloatStorage", "0", 8, 1, {2, 2}, {1, 2}).Raw("s");
}
std::string FlatPickle() {
  PickleWriter writer;
  return AddTensor(writer).Stop();
}

std::vector<float> Values(const StoredTensor& tensor) {
  std::vector<float> values(4);
  CopyRectangle({tensor.data, tensor.dtype, tensor.strides[0], tensor.strides[1]}, 0, 0, 2, 2,
                values.data(), 2);
  return values;
}

class FormatTest : public ::testing::TestWithParam<bool> {
 protected:
  static std::string File(const std::string& pickle, const std::vector<Storage>& storages) {
    return GetParam() ? TorchZip(pickle, storages) : TorchLegacy(pickle, storages);
  }
};
INSTANTIATE_TEST_SUITE_P(Formats, FormatTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Zip" : "Legacy"; });

TEST_P(FormatTest, ReadsAViewWithOffsetAndStrides) {
  ASSERT_OK_AND_ASSIGN(const StoredTensors tensors,
                       ReadBytes(File(FlatPickle(), {{"0", kFloats}})));
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_THAT(Values(tensors.at("w")), ElementsAre(1, 3, 2, 4));
}

TEST_P(FormatTest, FindsTensorsInEveryContainerAndIgnoresPlainEntries) {
  for (const auto& keys : std::vector<std::vector<std::string>>{
           {"module"}, {"state_dict"}, {"state_dict", "module"}}) {
    PickleWriter writer;
    for (const std::string& key : keys) {
      writer.Raw("}").String("meta").Raw("](NNesU\x01iK\x05s").String(key);
    }
    AddTensor(writer);
    for (size_t i = 0; i < keys.size(); ++i) writer.Raw("s");
    ASSERT_OK_AND_ASSIGN(const StoredTensors tensors,
                         ReadBytes(File(writer.Stop(), {{"0", kFloats}})));
    EXPECT_THAT(Values(tensors.at("w")), ElementsAre(1, 3, 2, 4));
  }
}

TEST_P(FormatTest, FilesWithoutTensorsSayWhatTheyHold) {
  EXPECT_THAT(ReadBytes(File(PickleWriter().Raw("}").String("epoch").Raw("K\x05s").Stop(), {})),
              StatusIs(kRefused, AllOf(HasSubstr("weights.pt"), HasSubstr("dict with epoch"))));
  EXPECT_THAT(ReadBytes(File(PickleWriter().Raw("]").Stop(), {})),
              StatusIs(kRefused, HasSubstr("holds a list")));
  const std::string cycle = PickleWriter()
                                .Raw(std::string_view("}q\0", 3))
                                .String("module")
                                .Raw(std::string_view("h\0s", 3))
                                .Stop();
  EXPECT_THAT(ReadBytes(File(cycle, {})), StatusIs(kRefused, HasSubstr("module")));
}

TEST_P(FormatTest, StoragesMustBeThereAndLargeEnough) {
  EXPECT_THAT(ReadBytes(File(FlatPickle(), {})), StatusIs(kDataLoss, HasSubstr("storage")));
  EXPECT_THAT(ReadBytes(File(FlatPickle(), {{"0", kFloats.substr(4)}})),
              StatusIs(kDataLoss, AllOf(HasSubstr("storage 0"), HasSubstr("8"))));
}

TEST_P(FormatTest, CodeIsRefusedByName) {
  const std::string pickle = PickleWriter()
                                 .Raw("}")
                                 .String("w")
                                 .Global("os", "system")
                                 .Raw("(")
                                 .String("id")
                                 .Raw("tRs")
                                 .Stop();
  EXPECT_THAT(ReadBytes(File(pickle, {})),
              StatusIs(kRefused, AllOf(HasSubstr("weights.pt"), HasSubstr("os.system"))));
}

TEST(TorchFile, RefusesWhatTorchDidNotWrite) {
  EXPECT_THAT(ReadBytes(""), StatusIs(kDataLoss, HasSubstr("0 bytes")));
  EXPECT_THAT(ReadBytes("version https://git-lfs.github.com/spec/v1"),
              StatusIs(kDataLoss, HasSubstr("version")));
  EXPECT_THAT(ReadBytes(std::string(257, 'x') + "ustar" + std::string(300, '\0')),
              StatusIs(kRefused, HasSubstr("tar")));
  EXPECT_THAT(ReadBytes(Zip({{"word/document.xml", "x"}})),
              StatusIs(kDataLoss, HasSubstr("data.pkl")));
  EXPECT_THAT(ReadBytes(Zip({{"a/data.pkl", "x"}, {"b/data.pkl", "x"}})),
              StatusIs(kDataLoss, HasSubstr("two data.pkl")));
  EXPECT_THAT(
      ReadBytes(Zip({{"a/data.pkl", FlatPickle()}, {"a/data/0", kFloats}, {"a/byteorder", "big"}})),
      StatusIs(kRefused, HasSubstr("big")));
}

TEST(TorchFile, LegacyFilesThatLieAreErrors) {
  const std::string good = TorchLegacy(FlatPickle(), {{"0", kFloats}});
  ASSERT_OK(ReadBytes(good));
  // The count of elements, 8, stands in front of the last 32 bytes.
  std::string count = good;
  count.replace(count.size() - 40, 8, LittleEndian(~uint64_t{0}, 8));
  EXPECT_THAT(ReadBytes(count), StatusIs(kDataLoss, HasSubstr("-1 elements")));
  EXPECT_THAT(ReadBytes(TorchLegacy(FlatPickle(), {{"0", kFloats}, {"0", kFloats}})),
              StatusIs(kDataLoss, HasSubstr("twice")));
  EXPECT_THAT(ReadBytes(TorchLegacy(FlatPickle(), {{"9", kFloats}})),
              StatusIs(kDataLoss, HasSubstr("names 9")));
}

TEST(TorchFile, LegacyHeadersOfOtherWritersAreRefused) {
  const std::string good = TorchLegacy(FlatPickle(), {{"0", kFloats}});
  const auto changed = [&good](const std::string& from, const std::string& to) {
    std::string bytes = good;
    const size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos);
    return bytes.replace(at, from.size(), to);
  };
  EXPECT_THAT(ReadBytes(changed("\x6c\xfc", "\x6d\xfc")),
              StatusIs(kDataLoss, HasSubstr("another magic number")));
  EXPECT_THAT(ReadBytes(changed(LittleEndian(1001, 8), LittleEndian(1002, 8))),
              StatusIs(kRefused, HasSubstr("its protocol is 1002, want 1001")));
  EXPECT_THAT(ReadBytes(changed("little_endian\x88", "little_endian\x89")),
              StatusIs(kRefused, HasSubstr("not little-endian")));
  EXPECT_THAT(ReadBytes(changed("little_endian", "middle_endian")),
              StatusIs(kRefused, HasSubstr("not little-endian")));
  // The pickle of the storages' keys is the last one: "](X….e." becomes "}.".
  std::string keys = good;
  const size_t at = keys.rfind("](");
  ASSERT_NE(at, std::string::npos);
  keys.replace(at, keys.rfind("e.") - at + 2, "}.");
  EXPECT_THAT(ReadBytes(keys), StatusIs(kDataLoss, HasSubstr("its list of storages is a dict")));
  EXPECT_THAT(ReadBytes(good.substr(0, good.size() - kFloats.size() - 1)),
              StatusIs(kDataLoss, HasSubstr("it ends before storage 0")));
}

TEST(Zip, RefusesWhatIsNoArchive) {
  EXPECT_THAT(ReadZip("PK"), StatusIs(kDataLoss, HasSubstr("2 bytes has no end record")));
  EXPECT_THAT(ReadZip(std::string(100, 'x')), StatusIs(kDataLoss, HasSubstr("cut short")));
  const std::string good = Zip({{"a", "hello"}});
  // The directory stands between the entry and the end record: 46 bytes and the name.
  const size_t directory = good.size() - 22 - 47;
  const auto changed = [&good](size_t at, uint64_t value, int bytes) {
    return std::string(good).replace(at, bytes, LittleEndian(value, bytes));
  };
  EXPECT_THAT(ReadZip(changed(0, 0, 4)),
              StatusIs(kDataLoss, HasSubstr("local header is not at 0")));
  EXPECT_THAT(ReadZip(changed(directory + 42, 7, 4)),
              StatusIs(kDataLoss, HasSubstr("local header is not at 7")));
  EXPECT_THAT(ReadZip(changed(directory, 0, 4)), StatusIs(kDataLoss, HasSubstr("entry 0 of 1")));
  EXPECT_THAT(ReadZip(changed(directory + 28, 500, 2)),
              StatusIs(kDataLoss, HasSubstr("cut short at entry 0")));
  EXPECT_THAT(ReadZip(changed(directory + 8, 1, 2)), StatusIs(kDataLoss, HasSubstr("encrypted")));
  EXPECT_THAT(ReadZip(changed(good.size() - 6, good.size(), 4)),
              StatusIs(kDataLoss, HasSubstr("is outside the archive")));
  EXPECT_THAT(ReadZip(changed(good.size() - 12, 9, 2)),
              StatusIs(kDataLoss, HasSubstr("claims 9 entries")));
}

TEST(Zip, RefusesCompressedAndRepeatedEntries) {
  EXPECT_THAT(ReadZip(Zip({{"bomb", "x", 8}})),
              StatusIs(kDataLoss, AllOf(HasSubstr("bomb"), HasSubstr("method 8"))));
  EXPECT_THAT(ReadZip(Zip({{"a", "x"}, {"a", "y"}})), StatusIs(kDataLoss, HasSubstr("twice")));
}

TEST(Zip, RefusesEntriesThatClaimMoreThanTheArchive) {
  EXPECT_THAT(ReadZip(Zip({{"a", "x", 0, 1000000}})), StatusIs(kDataLoss, HasSubstr("1000000")));
  EXPECT_THAT(ReadZip(Zip({{"a", "x", 0, 0xffffffff}})), StatusIs(kDataLoss, HasSubstr("outside")));
}

TEST(Zip, ReadsAnArchiveBehindAComment) {
  std::string archive = Zip({{"a", "hello"}});
  archive.replace(archive.size() - 2, 2, LittleEndian(100, 2));
  archive += std::string(100, 'c');
  ASSERT_OK_AND_ASSIGN(const ZipEntries entries, ReadZip(archive));
  EXPECT_EQ(entries.at("a"), "hello");
}

TEST(Zip, ReadsZip64Records) {
  // One entry whose sizes and offset stand in the extra field, and a directory found through the
  // zip64 locator.
  const std::string local = LittleEndian(0x04034b50, 4) + LittleEndian(45, 2) +
                            LittleEndian(0, 12) + LittleEndian(0xffffffff, 4) +
                            LittleEndian(0xffffffff, 4) + LittleEndian(1, 2) + LittleEndian(0, 2) +
                            "a" + "hello";
  const std::string extra = LittleEndian(1, 2) + LittleEndian(24, 2) + LittleEndian(5, 8) +
                            LittleEndian(5, 8) + LittleEndian(0, 8);
  const std::string central = LittleEndian(0x02014b50, 4) + LittleEndian(45, 2) +
                              LittleEndian(45, 2) + LittleEndian(0, 12) +
                              LittleEndian(0xffffffff, 4) + LittleEndian(0xffffffff, 4) +
                              LittleEndian(1, 2) + LittleEndian(extra.size(), 2) +
                              LittleEndian(0, 10) + LittleEndian(0xffffffff, 4) + "a" + extra;
  const std::string record = LittleEndian(0x06064b50, 4) + LittleEndian(44, 8) +
                             LittleEndian(0, 12) + LittleEndian(1, 8) + LittleEndian(1, 8) +
                             LittleEndian(central.size(), 8) + LittleEndian(local.size(), 8);
  const auto archive = [&](uint64_t record_offset) {
    return local + central + record + LittleEndian(0x07064b50, 4) + LittleEndian(0, 4) +
           LittleEndian(record_offset, 8) + LittleEndian(1, 4) + LittleEndian(0x06054b50, 4) +
           LittleEndian(0, 4) + LittleEndian(0xffff, 2) + LittleEndian(0xffff, 2) +
           LittleEndian(0xffffffff, 4) + LittleEndian(0xffffffff, 4) + LittleEndian(0, 2);
  };
  const std::string good = archive(local.size() + central.size());
  ASSERT_OK_AND_ASSIGN(const ZipEntries entries, ReadZip(good));
  EXPECT_EQ(entries.at("a"), "hello");
  EXPECT_THAT(ReadZip(archive(~uint64_t{0} - 10)), StatusIs(kDataLoss, HasSubstr("zip64")));
}

}  // namespace
}  // namespace hanlin
