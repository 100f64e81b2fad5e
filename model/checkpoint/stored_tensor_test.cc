// Widening to float32 for all 16-bit patterns, rectangles of strided matrices, extents.
#include "model/checkpoint/stored_tensor.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/testing/testing.h"
#include "model/checkpoint/test_files.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::RawBytes;
using testing::StatusIs;

std::vector<float> WidenAll16(DType dtype) {
  std::vector<uint16_t> bits(65536);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  // One byte in front: files promise no alignment.
  const std::string bytes = "x" + RawBytes(bits);
  std::vector<float> values(bits.size());
  CopyRectangle({reinterpret_cast<const uint8_t*>(bytes.data()) + 1, dtype, 256, 1}, 0, 0, 256, 256,
                values.data(), 256);
  return values;
}

TEST(CopyRectangle, WidensEveryFloat16Exactly) {
  const std::vector<float> values = WidenAll16(DType::kFloat16);
  for (uint32_t i = 0; i < 65536; ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31);
    const int mantissa = static_cast<int>(i & 1023);
    double wanted =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31)
      wanted = mantissa == 0 ? std::numeric_limits<double>::infinity() : std::nan("");
    if (std::isnan(wanted)) {
      EXPECT_TRUE(std::isnan(values[i])) << i;
    } else {
      EXPECT_EQ(values[i], static_cast<float>(i & 0x8000 ? -wanted : wanted)) << i;
    }
    EXPECT_EQ(std::signbit(values[i]), (i & 0x8000) != 0) << i;
  }
}

TEST(CopyRectangle, WidensEveryBFloat16Exactly) {
  const std::vector<float> values = WidenAll16(DType::kBFloat16);
  for (uint32_t i = 0; i < 65536; ++i) EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), i << 16);
}

TEST(CopyRectangle, ReadsTransposedMatricesLargerThanATile) {
  constexpr int64_t kRows = 131, kCols = 70;
  std::vector<float> stored(kRows * kCols);  // [cols, rows]
  for (size_t i = 0; i < stored.size(); ++i) stored[i] = static_cast<float>(i);
  const StoredMatrix matrix = {reinterpret_cast<const uint8_t*>(stored.data()), DType::kFloat32, 1,
                               kRows};
  std::vector<float> copy((kRows - 3) * (kCols - 2));
  CopyRectangle(matrix, 3, 2, kRows - 3, kCols - 2, copy.data(), kCols - 2);
  for (int64_t i = 0; i < kRows - 3; ++i) {
    for (int64_t j = 0; j < kCols - 2; ++j) {
      ASSERT_EQ(copy[static_cast<size_t>(i * (kCols - 2) + j)],
                static_cast<float>((j + 2) * kRows + i + 3));
    }
  }
}

TEST(CheckExtent, AcceptsViewsInsideTheStorage) {
  EXPECT_OK(CheckExtent({4, 3}, {3, 1}, 0, 12));
  EXPECT_OK(CheckExtent({4, 3}, {1, 4}, 2, 14));
  EXPECT_OK(CheckExtent({}, {}, 0, 1));
  EXPECT_OK(CheckExtent({0, 5}, {5, 1}, 0, 0));
}

TEST(CheckExtent, RefusesViewsOutsideAndNumbersThatOverflow) {
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
  EXPECT_THAT(CheckExtent({4, 3}, {3, 1}, 1, 12), StatusIs(kDataLoss, HasSubstr("[4, 3]")));
  EXPECT_THAT(CheckExtent({4, 3}, {3, 1}, -1, 12), StatusIs(kDataLoss, HasSubstr("-1")));
  EXPECT_THAT(CheckExtent({4, -3}, {3, 1}, 0, 12), StatusIs(kDataLoss, HasSubstr("-3")));
  EXPECT_THAT(CheckExtent({4}, {-1}, 4, 12), StatusIs(kDataLoss, HasSubstr("-1")));
  EXPECT_THAT(CheckExtent({kHuge, kHuge}, {kHuge, 1}, 0, 12), StatusIs(kDataLoss, HasSubstr("12")));
  EXPECT_THAT(CheckExtent({kHuge, 2}, {0, 0}, 0, 12), StatusIs(kDataLoss, HasSubstr("12")));
  EXPECT_THAT(CheckExtent({1000000}, {0}, 0, 12), StatusIs(kDataLoss, HasSubstr("12")));
  EXPECT_THAT(CheckExtent({}, {}, 1, 1), StatusIs(kDataLoss, HasSubstr("offset 1")));
  EXPECT_THAT(CheckExtent({0}, {1}, 13, 12), StatusIs(kDataLoss, HasSubstr("13")));
  EXPECT_THAT(CheckExtent({2}, {1, 1}, 0, 12), StatusIs(kDataLoss, HasSubstr("[1, 1]")));
}

TEST(ContiguousStrides, AreRowMajor) {
  EXPECT_THAT(ContiguousStrides({2, 3, 4}), ElementsAre(12, 4, 1));
}

}  // namespace
}  // namespace hanlin
