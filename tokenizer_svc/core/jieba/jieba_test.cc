// Python's segments exactly, on the golden lines; texts that no one segments; tables that are
// damaged.
#include "tokenizer_svc/core/jieba/jieba.h"

#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

std::string TablePath() { return *DataDirectory() + "/jieba.bin"; }

class JiebaTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto jieba = Jieba::Open(TablePath());
    ASSERT_OK(jieba);
    jieba_ = *jieba;
  }
  static void TearDownTestSuite() { jieba_.reset(); }

  static std::vector<std::string> Cut(std::string_view text) {
    std::vector<std::string_view> segments;
    jieba_->Cut(text, &segments);
    return {segments.begin(), segments.end()};
  }

  static std::shared_ptr<const Jieba> jieba_;
};
std::shared_ptr<const Jieba> JiebaTest::jieba_;

TEST_F(JiebaTest, CutsTheGoldenLinesAsPythonDoes) {
  std::ifstream lines(testing::GoldensDirectory() + "/jieba.jsonl");
  size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto golden = nlohmann::json::parse(line, nullptr, false);
    ASSERT_TRUE(golden.is_object()) << line;
    EXPECT_EQ(Cut(golden["text"].get<std::string>()),
              golden["segments"].get<std::vector<std::string>>())
        << line;
  }
  EXPECT_GT(count, 100u);
}

TEST_F(JiebaTest, EmptyTextHasNoSegments) { EXPECT_THAT(Cut(""), IsEmpty()); }

TEST_F(JiebaTest, OutsideOfBlocksEveryCharacterStandsAloneButCarriageReturnLineFeed) {
  EXPECT_THAT(Cut("\r\n\n\r 　é😀"), ElementsAre("\r\n", "\n", "\r", " ", "　", "é", "😀"));
}

TEST_F(JiebaTest, SpecialTokensFallApart) {
  EXPECT_THAT(Cut("<sep>"), ElementsAre("<", "sep", ">"));
  EXPECT_THAT(Cut("<|endoftext|>"), ElementsAre("<", "|", "endoftext", "|", ">"));
}

TEST_F(JiebaTest, SegmentsJoinToTheTextWhateverTheBytes) {
  std::mt19937 random(1);
  const std::vector<std::string> parts = {
      "中", "国", "的", "a", "1", ".", "%", "\xE4", "\xB8", "\xFF", std::string(1, '\0'), " "};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = random() % 40; i > 0; --i) text += parts[random() % parts.size()];
    std::string joined;
    for (const std::string& segment : Cut(text)) {
      EXPECT_FALSE(segment.empty());
      joined += segment;
    }
    ASSERT_EQ(joined, text);
  }
}

TEST_F(JiebaTest, ManyThreadsCutAlike) {
  const auto expected = Cut("武汉市长江大桥欢迎你，他来到了网易杭研大厦");
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        EXPECT_EQ(Cut("武汉市长江大桥欢迎你，他来到了网易杭研大厦"), expected);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(JiebaTest, TheHashIsThatOfTheFile) { EXPECT_EQ(jieba_->sha256().size(), 64u); }

class JiebaTableTest : public ::testing::Test {
 protected:
  // The real table, its bytes from `offset` on overwritten with `value`.
  template <typename T>
  std::string Patched(size_t offset, T value) {
    std::string table = *ReadFile(TablePath());
    std::memcpy(table.data() + offset, &value, sizeof(value));
    return dir_.Write("patched.bin", table);
  }
  testing::TempDir dir_;
};

TEST_F(JiebaTableTest, AMissingFileIsNotFound) {
  EXPECT_THAT(Jieba::Open(dir_.path() + "/none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST_F(JiebaTableTest, TruncatedFilesAreRefusedAtEveryLength) {
  const std::string table = *ReadFile(TablePath());
  for (size_t size :
       {size_t{0}, size_t{7}, size_t{31}, size_t{32}, size_t{1000}, table.size() - 1}) {
    EXPECT_THAT(Jieba::Open(dir_.Write("short.bin", table.substr(0, size))),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("bytes")))
        << size;
  }
}

TEST_F(JiebaTableTest, AnotherFormatIsRefused) {
  EXPECT_THAT(Jieba::Open(Patched(0, 'X')),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("HLJIEBA1")));
}

TEST_F(JiebaTableTest, LyingSizesAreRefused) {
  EXPECT_THAT(Jieba::Open(Patched(8, uint32_t{0xFFFFFFFF})),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("want")));
  EXPECT_THAT(Jieba::Open(Patched(8, uint32_t{0})),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("0 slots")));
  EXPECT_THAT(Jieba::Open(Patched(12, uint32_t{65})),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("longest word 65")));
}

TEST_F(JiebaTableTest, ValuesThatAreNoNumbersAreRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(Jieba::Open(Patched(32 + 8, nan)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("slot 0")));
  const size_t size = ReadFile(TablePath())->size();
  EXPECT_THAT(Jieba::Open(Patched(size - 8, nan)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("HMM")));
}

TEST_F(JiebaTableTest, WildLinksInTheTrieStayInBounds) {
  std::string table = *ReadFile(TablePath());
  std::mt19937 random(7);
  for (size_t at = 32; at + 16 < table.size() - sizeof(Jieba::Hmm); at += 16) {
    if (random() % 2) {
      const auto wild = static_cast<uint32_t>(random());
      std::memcpy(table.data() + at, &wild, sizeof(wild));
    }
  }
  auto jieba = Jieba::Open(dir_.Write("wild.bin", table));
  ASSERT_OK(jieba);
  std::vector<std::string_view> segments;
  const std::string text = "武汉市长江大桥欢迎你abc1.5%";
  (*jieba)->Cut(text, &segments);
  std::string joined;
  for (const auto& segment : segments) joined += segment;
  EXPECT_EQ(joined, text);
}

}  // namespace
}  // namespace hanlin
