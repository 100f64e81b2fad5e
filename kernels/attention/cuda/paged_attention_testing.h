// What the tests of paged attention share: a sequence with its attention in double, a paged cache,
// and values of either type as bytes.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_PAGED_ATTENTION_TESTING_H_
#define HANLIN_KERNELS_ATTENTION_CUDA_PAGED_ATTENTION_TESTING_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "kernels/attention/cuda/paged_attention.h"

namespace hanlin {

inline constexpr auto kBf16 = ComputeType::kBFloat16;
inline constexpr auto kFp32 = ComputeType::kFloat32;

inline float Rounded(float value, ComputeType type) {
  return type == kFp32 ? value : ToFloat(ToBFloat16(value));
}

// Values of `type` as bytes on the device and back.
inline std::vector<uint8_t> Encode(const std::vector<float>& values, ComputeType type) {
  std::vector<uint8_t> bytes(values.size() * SizeOf(type));
  for (size_t i = 0; i < values.size(); ++i) {
    const BFloat16 half = ToBFloat16(values[i]);
    if (type == kFp32) std::memcpy(&bytes[i * 4], &values[i], 4);
    if (type == kBf16) std::memcpy(&bytes[i * 2], &half, 2);
  }
  return bytes;
}
inline std::vector<float> Decode(const std::vector<uint8_t>& bytes, ComputeType type) {
  std::vector<float> values(bytes.size() / SizeOf(type));
  for (size_t i = 0; i < values.size(); ++i) {
    BFloat16 half;
    if (type == kFp32) std::memcpy(&values[i], &bytes[i * 4], 4);
    if (type == kBf16) {
      std::memcpy(&half, &bytes[i * 2], 2);
      values[i] = ToFloat(half);
    }
  }
  return values;
}

struct Shape {
  ComputeType type;
  int heads;
  int head_dim;
  int64_t width() const { return static_cast<int64_t>(heads) * head_dim; }
};

// q, k, v of a sequence's tokens: [tokens][3][heads][head_dim], already rounded to the type.
struct Sequence {
  Sequence(const Shape& shape, int64_t tokens, uint32_t seed) : shape(shape) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    qkv.resize(tokens * 3 * shape.width());
    for (float& value : qkv) value = Rounded(normal(random), shape.type);
  }
  const float* At(int64_t token, int part, int head) const {
    return qkv.data() + ((token * 3 + part) * shape.heads + head) * shape.head_dim;
  }
  std::span<const float> Rows(int64_t first, int64_t count) const {
    return {At(first, 0, 0), static_cast<size_t>(count * 3 * shape.width())};
  }

  // Attention of a token: the result, and the sum of absolute products that errors go with.
  void Expect(int64_t token, int head, std::vector<double>* out, std::vector<double>* sizes) const {
    std::vector<double> weights(token + 1);
    double total = 0.0, largest = -1e300;
    for (int64_t t = 0; t <= token; ++t) {
      double dot = 0.0;
      for (int d = 0; d < shape.head_dim; ++d) {
        dot += double{At(token, 0, head)[d]} * At(t, 1, head)[d];
      }
      weights[t] = dot / std::sqrt(static_cast<double>(shape.head_dim));
      largest = std::max(largest, weights[t]);
    }
    for (double& weight : weights) total += weight = std::exp(weight - largest);
    out->assign(shape.head_dim, 0.0);
    sizes->assign(shape.head_dim, 0.0);
    for (int64_t t = 0; t <= token; ++t) {
      for (int d = 0; d < shape.head_dim; ++d) {
        const double product = weights[t] / total * At(t, 2, head)[d];
        (*out)[d] += product;
        (*sizes)[d] += std::abs(product);
      }
    }
  }

  Shape shape;
  std::vector<float> qkv;
};

// A paged cache on the host: NaN wherever no token was written, blocks in random order.
class Cache {
 public:
  Cache(const Shape& shape, int sequences, int64_t max_tokens, uint32_t seed = 3)
      : shape_(shape), stride_(max_tokens / kPagedKvTokens + 2), order_(sequences * stride_) {
    values_.assign(order_.size() * 2 * kPagedKvTokens * shape.width(), NAN);
    std::iota(order_.begin(), order_.end(), 0);
    std::shuffle(order_.begin(), order_.end(), std::mt19937(seed));
  }
  void Write(const Sequence& s, int row, int64_t first, int64_t count) {
    for (int64_t t = first; t < first + count; ++t) {
      const int64_t block = order_[row * stride_ + t / kPagedKvTokens];
      for (int part : {0, 1}) {
        for (int head = 0; head < shape_.heads; ++head) {
          const int64_t slot =
              ((block * 2 + part) * shape_.heads + head) * kPagedKvTokens + t % kPagedKvTokens;
          std::copy_n(s.At(t, 1 + part, head), shape_.head_dim, &values_[slot * shape_.head_dim]);
        }
      }
    }
  }
  std::vector<uint8_t> Bytes() const { return Encode(values_, shape_.type); }
  const std::vector<int32_t>& tables() const { return order_; }
  int64_t stride() const { return stride_; }

 private:
  Shape shape_;
  int64_t stride_;
  std::vector<int32_t> order_;
  std::vector<float> values_;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_PAGED_ATTENTION_TESTING_H_
