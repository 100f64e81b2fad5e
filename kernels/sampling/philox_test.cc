// Random123's known answers, and the noise against a scalar copy of its definition bit by bit.
#include "kernels/sampling/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::KernelTest;

using Words = std::array<uint32_t, 4>;

TEST(Philox, GivesThePublishedAnswers) {
  // The known-answer tests of Random123.
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}, 7),
            (Words{0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48}));
  EXPECT_EQ(
      Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, 7),
      (Words{0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}));
}

// The contract of philox.h once more, written with scalars alone.
float Log(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t shifted = bits + (0x3f800000u - 0x3f3504f3u);
  const auto n = static_cast<float>(static_cast<int32_t>(shifted >> 23) - 127);
  const uint32_t mantissa = (shifted & 0x7fffffu) + 0x3f3504f3u;
  float m;
  std::memcpy(&m, &mantissa, sizeof(m));
  const float f = m - 1.0f, z = f * f;
  float p = 0.0697161147145f;
  for (float c : {-0.114797338466f, 0.116854199235f, -0.124256873315f, 0.142490576457f,
                  -0.166678023195f, 0.200007157489f, -0.24999996958f, 0.3333333118f}) {
    p = std::fma(p, f, c);
  }
  float q = (p * f) * z;
  q = std::fma(-0.5f, z, q);
  q = std::fma(n, 0x1.7f7d1cp-20f, q);
  const float low = f + q;
  return std::fma(n, 0x1.62e4p-1f, low);
}

float ScalarNoise(const DrawKey& key, int32_t signed_id) {
  const auto id = static_cast<uint32_t>(signed_id);
  const Words words =
      Philox4x32({id / 64 * 16 + id % 16, static_cast<uint32_t>(key.position),
                  static_cast<uint32_t>(key.position >> 32), key.choice},
                 {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
  const auto random = static_cast<float>(words[id / 16 % 4]);
  const float v = std::min(std::fma(random, 0x1p-32f, 0x1p-33f), 1.0f - 0x1p-24f);
  const float y = 1.0f - v;
  const float lost = (1.0f - y) - v;
  const float e = -(Log(y) + lost / y);
  return -Log(e);
}

class GumbelTest : public KernelTest {};

TEST_P(GumbelTest, HasTheBitsOfTheScalarDefinition) {
  for (const DrawKey& key : {DrawKey{0, 0, 0}, DrawKey{0x123456789abcdef0u, 77, 1},
                             DrawKey{~uint64_t{0}, ~uint64_t{0}, ~0u}}) {
    for (int32_t id = 0; id < 3000; ++id)
      EXPECT_EQ(GumbelNoise(key, id), ScalarNoise(key, id)) << id;
    EXPECT_EQ(GumbelNoise(key, INT32_MAX), ScalarNoise(key, INT32_MAX));
  }
}

TEST_P(GumbelTest, EveryPartOfTheKeyChangesTheNoise) {
  const DrawKey key{5, 6, 7};
  const float noise = GumbelNoise(key, 8);
  EXPECT_NE(GumbelNoise({5 + (uint64_t{1} << 32), 6, 7}, 8), noise);
  EXPECT_NE(GumbelNoise({4, 6, 7}, 8), noise);
  EXPECT_NE(GumbelNoise({5, 6 + (uint64_t{1} << 32), 7}, 8), noise);
  EXPECT_NE(GumbelNoise({5, 5, 7}, 8), noise);
  EXPECT_NE(GumbelNoise({5, 6, 0}, 8), noise);
  EXPECT_NE(GumbelNoise(key, 9), noise);
}

TEST_P(GumbelTest, HasMeanAndVarianceOfTheGumbelDistribution) {
  constexpr int kCount = 50000;
  double sum = 0, squares = 0;
  for (int id = 0; id < kCount; ++id) {
    const double noise = GumbelNoise({42, 0, 0}, id);
    sum += noise;
    squares += noise * noise;
  }
  const double mean = sum / kCount;
  // Five standard errors: of the mean 1.2825 / sqrt(n), of the variance about 3.5 / sqrt(n).
  EXPECT_NEAR(mean, 0.57722, 5 * 1.2825 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount - mean * mean, 1.64493, 5 * 3.5 / std::sqrt(kCount));
}

TEST(GumbelDefinition, ScalarLogIsAccurateOverItsRange) {
  for (double x = 0x1p-34; x < 20.0; x *= 1.0173) {
    const auto argument = static_cast<float>(x);
    const double want = std::log(static_cast<double>(argument));
    EXPECT_NEAR(Log(argument), want, 0x1p-23 * std::max(1.0, std::abs(want))) << argument;
  }
}

INSTANTIATE_KERNEL_TEST(GumbelTest);

}  // namespace
}  // namespace hanlin
