// Number types of the CPU kernels: what weights, activations and the KV cache are stored as.
// bf16 is the upper half of an IEEE fp32; conversion rounds to nearest even, NaN stays NaN. All
// arithmetic on it is done in fp32. The helpers are forced inline with internal linkage: this
// header is included by files that are compiled for other instruction sets, and the linker must
// never pick such a copy for general use.
#ifndef HANLIN_KERNELS_BASE_TYPES_H_
#define HANLIN_KERNELS_BASE_TYPES_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HANLIN_KERNEL_INLINE static inline __attribute__((always_inline))
#define HANLIN_LAMBDA_INLINE __attribute__((always_inline))

namespace hanlin {

enum class ComputeType : uint8_t { kFloat32, kBFloat16 };

struct BFloat16 {
  uint16_t bits;
};

HANLIN_KERNEL_INLINE size_t SizeOf(ComputeType type) {
  return type == ComputeType::kFloat32 ? 4 : 2;
}

HANLIN_KERNEL_INLINE float ToFloat(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  memcpy(&result, &bits, sizeof(result));
  return result;
}
HANLIN_KERNEL_INLINE float ToFloat(float value) { return value; }

HANLIN_KERNEL_INLINE BFloat16 ToBFloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_TYPES_H_
