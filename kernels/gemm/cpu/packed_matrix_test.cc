// The packed layout element by element, and all ways of filling it.
#include "kernels/gemm/cpu/packed_matrix.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "common/testing/testing.h"
#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::StatusIs;
using ::hanlin::testing::TypeOf;

template <typename T>
class PackedMatrixTest : public ::testing::Test {
 protected:
  PackedMatrix Make(int64_t n, int64_t k) {
    arenas_.push_back(*Arena::Create(PackedMatrix::Bytes(TypeOf<T>(), n, k)));
    return *PackedMatrix::Create(TypeOf<T>(), n, k, arenas_.back());
  }
  static bool SameBytes(const PackedMatrix& a, const PackedMatrix& b) {
    return std::memcmp(a.data, b.data, PackedMatrix::Bytes(a.type, a.n, a.k)) == 0;
  }

 private:
  std::vector<Arena> arenas_;
};

using Types = ::testing::Types<float, BFloat16>;
TYPED_TEST_SUITE(PackedMatrixTest, Types);

TYPED_TEST(PackedMatrixTest, RowsComeBackRoundedToTheType) {
  for (int64_t n : {1, 15, 16, 17, 50}) {
    for (int64_t k : {1, 2, 7, 64}) {
      const PackedMatrix matrix = this->Make(n, k);
      const std::vector<float> source = RandomFloats(n * k, 1);
      const std::vector<TypeParam> rounded = Convert<TypeParam>(source);
      matrix.PackRows(0, n, source.data());
      std::vector<float> row(k);
      for (int64_t r = 0; r < n; ++r) {
        matrix.UnpackRow(r, row.data());
        for (int64_t c = 0; c < k; ++c)
          EXPECT_EQ(row[c], ToFloat(rounded[r * k + c])) << r << ' ' << c;
      }
    }
  }
}

TYPED_TEST(PackedMatrixTest, LayoutIsPanelsOfSixteenRowsThatWalkK) {
  const PackedMatrix matrix = this->Make(20, 3);
  const std::vector<float> source = RandomFloats(20 * 3, 2);
  const std::vector<TypeParam> rounded = Convert<TypeParam>(source);
  matrix.PackRows(0, 20, source.data());
  const auto* data = reinterpret_cast<const TypeParam*>(matrix.data);
  const int64_t group = sizeof(TypeParam) == 4 ? 1 : 2;  // ks side by side
  const int64_t columns = sizeof(TypeParam) == 4 ? 3 : 4;
  for (int64_t panel = 0; panel < 2; ++panel) {
    for (int64_t lane = 0; lane < 16; ++lane) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t row = panel * 16 + lane;
        const float want = row < 20 && c < 3 ? ToFloat(rounded[row * 3 + c]) : 0.0f;
        const int64_t at = panel * columns * 16 + (c / group * 16 + lane) * group + c % group;
        EXPECT_EQ(ToFloat(data[at]), want) << row << ' ' << c;
      }
    }
  }
}

TYPED_TEST(PackedMatrixTest, TransposedPartialAndNarrowSourcesGiveTheSameBytes) {
  const int64_t n = 37, k = 21;
  const std::vector<float> source = RandomFloats(n * k, 3);
  const PackedMatrix whole = this->Make(n, k);
  whole.PackRows(0, n, source.data());

  std::vector<float> transposed(n * k);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < k; ++c) transposed[c * n + r] = source[r * k + c];
  }
  const PackedMatrix from_columns = this->Make(n, k);
  for (int64_t c = 0; c < k; c += 5) {
    const int64_t cols = std::min<int64_t>(5, k - c);
    from_columns.Pack(0, n, c, cols, transposed.data() + c * n, 1, n);
  }
  EXPECT_TRUE(this->SameBytes(whole, from_columns));

  const PackedMatrix by_threads = this->Make(n, k);
  std::vector<std::thread> threads;
  for (int64_t r = 0; r < n; r += 10) {
    threads.emplace_back(
        [&, r] { by_threads.PackRows(r, std::min<int64_t>(10, n - r), source.data() + r * k); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(this->SameBytes(whole, by_threads));

  const std::vector<BFloat16> narrow = Convert<BFloat16>(source);
  std::vector<float> widened(n * k);
  for (int64_t i = 0; i < n * k; ++i) widened[i] = ToFloat(narrow[i]);
  const PackedMatrix from_narrow = this->Make(n, k);
  const PackedMatrix from_widened = this->Make(n, k);
  from_narrow.PackRows(0, n, narrow.data());
  from_widened.PackRows(0, n, widened.data());
  EXPECT_TRUE(this->SameBytes(from_narrow, from_widened));
}

TEST(PackedMatrix, RefusesExtentsOutOfRangeAndFullArenas) {
  Arena arena = *Arena::Create(64);
  EXPECT_THAT(PackedMatrix::Create(ComputeType::kFloat32, 0, 4, arena),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("0 x 4")));
  EXPECT_THAT(PackedMatrix::Create(ComputeType::kFloat32, 4, int64_t{1} << 40, arena),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("want both in")));
  EXPECT_THAT(PackedMatrix::Create(ComputeType::kFloat32, 16, 16, arena),
              StatusIs(absl::StatusCode::kResourceExhausted, ::testing::HasSubstr("do not fit")));
}

}  // namespace
}  // namespace hanlin
