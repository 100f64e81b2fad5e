// Event files read back byte by byte: lengths, checksums, fields.
#include "trainer/log/tensorboard.h"

#include <cstring>

#include "common/io/file.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

struct Field {
  int number;
  std::string bytes;  // of length-delimited and fixed fields
  uint64_t varint = 0;
};

uint64_t Varint(std::string_view* rest) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(rest->front());
    rest->remove_prefix(1);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
}

std::vector<Field> Fields(std::string_view rest) {
  std::vector<Field> fields;
  while (!rest.empty()) {
    const uint64_t key = Varint(&rest);
    Field field = {static_cast<int>(key >> 3), "", 0};
    const int type = key & 7;
    if (type == 0) {
      field.varint = Varint(&rest);
    } else {
      const size_t size = type == 1 ? 8 : type == 5 ? 4 : Varint(&rest);
      field.bytes = rest.substr(0, size);
      rest.remove_prefix(size);
    }
    fields.push_back(field);
  }
  return fields;
}

template <typename T>
T As(std::string_view bytes) {
  T value;
  EXPECT_EQ(bytes.size(), sizeof(value));
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

// The records of a file; every checksum is checked.
std::vector<std::string> Records(std::string_view rest) {
  std::vector<std::string> records;
  while (rest.size() >= 16) {
    const auto length = As<uint64_t>(rest.substr(0, 8));
    EXPECT_EQ(As<uint32_t>(rest.substr(8, 4)), MaskedCrc32c(rest.substr(0, 8)));
    records.emplace_back(rest.substr(12, length));
    EXPECT_EQ(As<uint32_t>(rest.substr(12 + length, 4)), MaskedCrc32c(records.back()));
    rest.remove_prefix(16 + length);
  }
  EXPECT_TRUE(rest.empty());
  return records;
}

TEST(Crc32cTest, PublishedValues) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
}

TEST(EventWriterTest, WhatIsWrittenIsReadBack) {
  const testing::TempDir directory;
  ASSERT_OK_AND_ASSIGN(const auto writer, EventWriter::Create(directory.path() + "/tb"));
  const EventWriter::Scalar scalars[] = {{"loss", 2.5}, {"evaluation/ppl", 76.25}};
  ASSERT_OK(writer->Write(1234.5, 300, scalars));
  const std::vector<std::string> records = Records(ReadFile(writer->path()).value());
  ASSERT_EQ(records.size(), 2u);
  const std::vector<Field> first = Fields(records[0]);
  EXPECT_EQ(first[1].number, 3);
  EXPECT_EQ(first[1].bytes, "brain.Event:2");
  const std::vector<Field> event = Fields(records[1]);
  ASSERT_EQ(event.size(), 3u);
  EXPECT_EQ(As<double>(event[0].bytes), 1234.5);
  EXPECT_EQ(event[1].varint, 300u);
  EXPECT_EQ(event[2].number, 5);
  const std::vector<Field> values = Fields(event[2].bytes);
  ASSERT_EQ(values.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const std::vector<Field> value = Fields(values[i].bytes);
    EXPECT_EQ(value[0].bytes, scalars[i].first);
    EXPECT_EQ(value[1].number, 2);
    EXPECT_EQ(As<float>(value[1].bytes), static_cast<float>(scalars[i].second));
  }
}

TEST(EventWriterTest, ATextIsAStringTensorOfTheTextPlugin) {
  const testing::TempDir directory;
  ASSERT_OK_AND_ASSIGN(const auto writer, EventWriter::Create(directory.path()));
  ASSERT_OK(writer->WriteText(1, 2, "sample/1", "春眠不觉晓"));
  const std::vector<Field> event = Fields(Records(ReadFile(writer->path()).value())[1]);
  const std::vector<Field> value = Fields(Fields(event[2].bytes)[0].bytes);
  ASSERT_EQ(value.size(), 3u);
  EXPECT_EQ(value[0].bytes, "sample/1");
  const std::vector<Field> tensor = Fields(value[1].bytes);
  EXPECT_EQ(tensor[0].varint, 7u);
  EXPECT_EQ(Fields(Fields(tensor[1].bytes)[0].bytes)[0].varint, 1u);
  EXPECT_EQ(tensor[2].number, 8);
  EXPECT_EQ(tensor[2].bytes, "春眠不觉晓");
  EXPECT_EQ(value[2].number, 9);
  EXPECT_EQ(Fields(Fields(value[2].bytes)[0].bytes)[0].bytes, "text");
}

TEST(EventWriterTest, AFolderThatCannotBeIsNamed) {
  const testing::TempDir directory;
  const std::string file = directory.Write("f", "");
  EXPECT_THAT(EventWriter::Create(file + "/x").status(),
              testing::StatusIs(absl::StatusCode::kNotFound, ::testing::HasSubstr(file)));
}

}  // namespace
}  // namespace hanlin
