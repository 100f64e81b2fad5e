// An array of numbers whose type is known at run time only: an activation of training that is
// stored as fp32, or as the bf16 that products round it to. Not for files that are compiled once
// per instruction set (see types.h); their kernels take a pointer and a type.
#ifndef HANLIN_KERNELS_BASE_ARRAY_H_
#define HANLIN_KERNELS_BASE_ARRAY_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/types.h"

namespace hanlin {

struct Array {
  void* data = nullptr;
  ComputeType type = ComputeType::kFloat32;

  Array() = default;
  // NOLINTBEGIN(google-explicit-constructor): a pointer of a known type is an array.
  Array(float* values) : data(values) {}
  Array(BFloat16* values) : data(values), type(ComputeType::kBFloat16) {}
  // NOLINTEND(google-explicit-constructor)
  Array(void* values, ComputeType values_type) : data(values), type(values_type) {}

  // The array from element `index` on.
  Array From(int64_t index) const {
    return {static_cast<std::byte*>(data) + index * static_cast<int64_t>(SizeOf(type)), type};
  }
};

struct ConstArray {
  const void* data = nullptr;
  ComputeType type = ComputeType::kFloat32;

  ConstArray() = default;
  // NOLINTBEGIN(google-explicit-constructor)
  ConstArray(const float* values) : data(values) {}
  ConstArray(const BFloat16* values) : data(values), type(ComputeType::kBFloat16) {}
  ConstArray(Array array) : data(array.data), type(array.type) {}
  // NOLINTEND(google-explicit-constructor)
  ConstArray(const void* values, ComputeType values_type) : data(values), type(values_type) {}

  ConstArray From(int64_t index) const {
    return {static_cast<const std::byte*>(data) + index * static_cast<int64_t>(SizeOf(type)), type};
  }
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_ARRAY_H_
