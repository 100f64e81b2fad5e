// What the kernel tests share: tests parameterised over the instruction sets of this machine,
// random data, type rounding.
#ifndef HANLIN_KERNELS_BASE_KERNEL_TESTING_H_
#define HANLIN_KERNELS_BASE_KERNEL_TESTING_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/base/isa.h"
#include "kernels/base/types.h"

namespace hanlin::testing {

// Runs the body under one instruction set; every kernel test is instantiated for all that this
// machine supports.
class KernelTest : public ::testing::TestWithParam<Isa> {
 protected:
  KernelTest() : before_(ActiveIsa()) { SetIsaForTesting(GetParam()); }
  ~KernelTest() override { SetIsaForTesting(before_); }

 private:
  const Isa before_;
};

#define INSTANTIATE_KERNEL_TEST(suite)                                                  \
  INSTANTIATE_TEST_SUITE_P(Isas, suite, ::testing::ValuesIn(::hanlin::SupportedIsas()), \
                           [](const ::testing::TestParamInfo<::hanlin::Isa>& info) {    \
                             return std::string(::hanlin::IsaName(info.param));         \
                           })

// Normally distributed numbers, the same for the same seed.
inline std::vector<float> RandomFloats(size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

template <typename T>
std::vector<T> Convert(const std::vector<float>& values) {
  std::vector<T> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_same_v<T, float>) {
      result[i] = values[i];
    } else {
      result[i] = ToBFloat16(values[i]);
    }
  }
  return result;
}

template <typename T>
std::vector<float> ToFloats(const std::vector<T>& values) {
  std::vector<float> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) result[i] = ToFloat(values[i]);
  return result;
}

// The error of `got` relative to `want`, both as vectors in the Euclidean norm; NaN when one is in
// them.
inline double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  double errors = 0, squares = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    errors += std::pow(double{got[i]} - want[i], 2);
    squares += double{want[i]} * want[i];
  }
  return std::sqrt(errors / squares);
}

template <typename T>
constexpr ComputeType TypeOf() {
  return std::is_same_v<T, float> ? ComputeType::kFloat32 : ComputeType::kBFloat16;
}

template <typename T>
bool SameBits(const T* a, const T* b, size_t count) {
  return std::memcmp(a, b, count * sizeof(T)) == 0;
}

}  // namespace hanlin::testing

#endif  // HANLIN_KERNELS_BASE_KERNEL_TESTING_H_
