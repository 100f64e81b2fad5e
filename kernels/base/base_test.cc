// bf16 rounding, instruction sets, arenas.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "common/testing/testing.h"
#include "kernels/base/aligned.h"
#include "kernels/base/arena.h"
#include "kernels/base/isa.h"
#include "kernels/base/types.h"

namespace hanlin {
namespace {

using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(ToBFloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(ToBFloat16(0x1.01p0f).bits, 0x3f80);      // halfway: to even, down
  EXPECT_EQ(ToBFloat16(0x1.03p0f).bits, 0x3f82);      // halfway: to even, up
  EXPECT_EQ(ToBFloat16(0x1.010002p0f).bits, 0x3f81);  // above halfway
  EXPECT_EQ(ToBFloat16(-0x1.03p0f).bits, 0xbf82);
  EXPECT_EQ(ToBFloat16(std::numeric_limits<float>::max()).bits, 0x7f80);  // to infinity
}

TEST(BFloat16, KeepsInfinityNanAndEveryBf16Value) {
  EXPECT_EQ(ToBFloat16(-INFINITY).bits, 0xff80);
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(NAN))));
  uint32_t low_nan_bits = 0x7f800001u;  // its upper half alone would be infinity
  float low_nan;
  std::memcpy(&low_nan, &low_nan_bits, sizeof(low_nan));
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(low_nan))));
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const BFloat16 value{static_cast<uint16_t>(bits)};
    if (std::isnan(ToFloat(value))) continue;
    EXPECT_EQ(ToBFloat16(ToFloat(value)).bits, bits);
  }
}

TEST(Isa, PortableIsAlwaysSupportedAndTheActiveOneIsAmongTheSupported) {
  const std::vector<Isa> supported = SupportedIsas();
  EXPECT_EQ(supported.front(), Isa::kPortable);
  EXPECT_THAT(supported, ::testing::Contains(ActiveIsa()));
}

TEST(AlignedVector, BeginsOnACacheLineWhateverItsSize) {
  for (const size_t size : {1, 100, 3 << 20}) {
    AlignedVector<float> values(size, 1.0f);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(values.data()) % 64, 0u);
    EXPECT_EQ(values.back(), 1.0f);
  }
}

TEST(Arena, HandsOutAlignedZeroedMemoryUntilItIsFull) {
  ASSERT_OK_AND_ASSIGN(Arena arena, Arena::Create(256));
  ASSERT_OK_AND_ASSIGN(std::byte * first, arena.Allocate(100));
  ASSERT_OK_AND_ASSIGN(std::byte * second, arena.Allocate(128));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % Arena::kAlignment, 0u);
  EXPECT_EQ(second - first, 128);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(first[i], std::byte{0});
  EXPECT_THAT(arena.Allocate(1),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("1 bytes do not fit")));
}

TEST(Arena, RefusesAbsurdSizesWithAnError) {
  EXPECT_THAT(Arena::Create(SIZE_MAX),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("cannot reserve")));
  ASSERT_OK_AND_ASSIGN(Arena arena, Arena::Create(64));
  EXPECT_THAT(arena.Allocate(SIZE_MAX),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("do not fit")));
}

TEST(Arena, ReservesFarMoreThanItTouches) {
  ASSERT_OK_AND_ASSIGN(Arena arena, Arena::Create(size_t{1} << 40));
  ASSERT_OK_AND_ASSIGN(std::byte * memory, arena.Allocate(size_t{1} << 40));
  memory[(size_t{1} << 40) - 1] = std::byte{1};
}

TEST(Arena, MovesWithItsMemory) {
  ASSERT_OK_AND_ASSIGN(Arena first, Arena::Create(64));
  ASSERT_OK_AND_ASSIGN(std::byte * memory, first.Allocate(64));
  memory[0] = std::byte{7};
  Arena second = std::move(first);
  EXPECT_EQ(second.data()[0], std::byte{7});
  EXPECT_EQ(second.used(), 64u);
}

}  // namespace
}  // namespace hanlin
