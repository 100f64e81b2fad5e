// See causal_attention.h. Per block of queries: scores of all keys up to the block's end, rows cut
// to what each query sees (the rest is 0), then products with V, or with dO, Q and K.
#include "kernels/attention/cpu/causal_attention.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/attention/cpu/causal_attention_kernels.h"
#include "kernels/base/isa.h"
#include "kernels/elementwise/cpu/elementwise_kernels.h"
#include "kernels/gemm/cpu/matmul.h"

namespace hanlin {
namespace {

constexpr int64_t kQueryBlock = 64;
constexpr int64_t kKeyAlignment = 64;  // where dropout's groups of columns begin

// One head of one sequence and one block of its queries.
struct Block {
  int64_t sequence, head;
  int64_t query_begin, query_end;
  int64_t key_begin, key_end;  // keys that some query of the block sees, key_begin aligned down
  int64_t queries() const { return query_end - query_begin; }
  int64_t keys() const { return key_end - key_begin; }
};

class Head {
 public:
  Head(const CausalAttentionParams& p, int64_t index)
      : p_(p), sequence_(index / p.heads), head_(index % p.heads) {}

  int64_t FirstKey(int64_t query) const {
    return p_.document_begin == nullptr ? 0 : p_.document_begin[sequence_ * p_.length + query];
  }

  Block BlockAt(int64_t query_begin) const {
    const int64_t query_end = std::min(p_.length, query_begin + kQueryBlock);
    int64_t first = query_begin;
    for (int64_t q = query_begin; q < query_end; ++q) first = std::min(first, FirstKey(q));
    return {sequence_, head_, query_begin, query_end, first / kKeyAlignment * kKeyAlignment,
            query_end};
  }

  // Element [position 0] of q (0), k (1) or v (2) in a [tokens, 3, heads, head_dim] array.
  template <typename T>
  T* Qkv(T* base, int which) const {
    return base + sequence_ * p_.length * qkv_stride() + (which * p_.heads + head_) * p_.head_dim;
  }
  template <typename T>
  T* Out(T* base) const {
    return base + sequence_ * p_.length * out_stride() + head_ * p_.head_dim;
  }
  int64_t qkv_stride() const { return 3 * p_.heads * p_.head_dim; }
  int64_t out_stride() const { return p_.heads * p_.head_dim; }
  float* log_sum() const { return p_.log_sum + (sequence_ * p_.heads + head_) * p_.length; }

  // scores[queries, keys] = x y^T with rows of head_dim.
  void Scores(const Block& b, const float* x, int64_t x_stride, const float* y,
              float* scores) const {
    MatMulParams m = {.m = b.queries(), .n = b.keys(), .k = p_.head_dim};
    m.a = x + b.query_begin * x_stride;
    m.a_stride = x_stride;
    m.b = y + b.key_begin * qkv_stride();
    m.b_stride = qkv_stride();
    m.b_transposed = true;
    m.c = scores;
    m.c_stride = b.keys();
    m.type = p_.operands;
    MatMulOnThisThread(m);
  }

  // Runs row(query, first column seen, columns seen, row of `a`) and zeroes what a query does not
  // see.
  template <typename Row>
  void ForRows(const Block& b, float* a, Row row) const {
    for (int64_t q = b.query_begin; q < b.query_end; ++q) {
      float* const values = a + (q - b.query_begin) * b.keys();
      const int64_t first = FirstKey(q) - b.key_begin;
      const int64_t end = q + 1 - b.key_begin;
      std::fill(values, values + first, 0.0f);
      std::fill(values + end, values + b.keys(), 0.0f);
      row(q, first, end - first, values);
    }
  }

  void Dropout(const ElementwiseKernels& kernels, const Block& b, int64_t query, float* row) const {
    const auto token = static_cast<uint32_t>(sequence_ * p_.length + query);
    const auto column =
        static_cast<uint32_t>((p_.first_head + head_) * kMaxTrainLength + b.key_begin);
    kernels.dropout(p_.dropout, p_.dropout.first_row + token, column, row, b.keys(), row);
  }

 private:
  const CausalAttentionParams& p_;
  const int64_t sequence_, head_;
};

// c [m rows of queries or keys] (+)= op(scores) b
void Apply(const CausalAttentionParams& p, const Block& block, const float* scores, bool transposed,
           const float* b, int64_t b_stride, bool accumulate, float* c, int64_t c_stride) {
  MatMulParams m = {.m = transposed ? block.keys() : block.queries(), .n = p.head_dim};
  m.type = p.operands;
  m.k = transposed ? block.queries() : block.keys();
  m.a = scores;
  m.a_stride = block.keys();
  m.a_transposed = transposed;
  m.b = b;
  m.b_stride = b_stride;
  m.accumulate = accumulate;
  m.c = c;
  m.c_stride = c_stride;
  MatMulOnThisThread(m);
}

void ForwardHead(const CausalAttentionParams& p, int64_t index, float* out) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kCausalAttentionKernels);
  const auto& elementwise = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  const Head head(p, index);
  thread_local std::vector<float> scores;
  scores.resize(kQueryBlock * (p.length + kKeyAlignment));
  for (int64_t begin = 0; begin < p.length; begin += kQueryBlock) {
    const Block b = head.BlockAt(begin);
    head.Scores(b, head.Qkv(p.qkv, 0), head.qkv_stride(), head.Qkv(p.qkv, 1), scores.data());
    head.ForRows(b, scores.data(), [&](int64_t q, int64_t first, int64_t count, float* row) {
      head.log_sum()[q] = kernels.softmax(row + first, count, p.scale);
      if (p.dropout.rate > 0) head.Dropout(elementwise, b, q, row);
    });
    Apply(p, b, scores.data(), false, head.Qkv(p.qkv, 2) + b.key_begin * head.qkv_stride(),
          head.qkv_stride(), false, head.Out(out) + b.query_begin * head.out_stride(),
          head.out_stride());
  }
}

void BackwardHead(const CausalAttentionParams& p, int64_t index, const float* out,
                  const float* dout, float* dqkv) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kCausalAttentionKernels);
  const auto& elementwise = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  const Head head(p, index);
  const int64_t stride = head.qkv_stride();
  thread_local std::vector<float> probability_of, dropped_of, gradient_of;
  for (auto* buffer : {&probability_of, &dropped_of, &gradient_of}) {
    buffer->resize(kQueryBlock * (p.length + kKeyAlignment));
  }
  float* const probability = probability_of.data();
  float* const dropped = p.dropout.rate > 0 ? dropped_of.data() : probability;
  float* const gradient = gradient_of.data();
  for (int64_t t = 0; t < p.length; ++t) {
    for (int which = 1; which < 3; ++which) {
      std::memset(head.Qkv(dqkv, which) + t * stride, 0, p.head_dim * sizeof(float));
    }
  }
  for (int64_t begin = 0; begin < p.length; begin += kQueryBlock) {
    const Block b = head.BlockAt(begin);
    const int64_t key_offset = b.key_begin * stride, query_offset = b.query_begin * stride;
    const float* const dout_block = head.Out(dout) + b.query_begin * head.out_stride();
    head.Scores(b, head.Qkv(p.qkv, 0), stride, head.Qkv(p.qkv, 1), probability);
    head.ForRows(b, probability, [&](int64_t q, int64_t first, int64_t count, float* row) {
      kernels.probabilities(row + first, count, p.scale, head.log_sum()[q]);
      if (p.dropout.rate > 0) {
        float* const copy = dropped + (row - probability);
        std::memcpy(copy, row, b.keys() * sizeof(float));
        head.Dropout(elementwise, b, q, copy);
      }
    });
    Apply(p, b, dropped, true, dout_block, head.out_stride(), true, head.Qkv(dqkv, 2) + key_offset,
          stride);
    head.Scores(b, head.Out(dout), head.out_stride(), head.Qkv(p.qkv, 2), gradient);
    head.ForRows(b, gradient, [&](int64_t q, int64_t first, int64_t count, float* row) {
      if (p.dropout.rate > 0) head.Dropout(elementwise, b, q, row);
      // sum(dP P) = sum(dO O), with dropout as without it.
      const float delta = kernels.dot(head.Out(dout) + q * head.out_stride(),
                                      head.Out(out) + q * head.out_stride(), p.head_dim);
      kernels.dscores(probability + (row - gradient) + first, count, delta, p.scale, row + first);
    });
    Apply(p, b, gradient, false, head.Qkv(p.qkv, 1) + key_offset, stride, false,
          head.Qkv(dqkv, 0) + query_offset, stride);
    Apply(p, b, gradient, true, head.Qkv(p.qkv, 0) + query_offset, stride, true,
          head.Qkv(dqkv, 1) + key_offset, stride);
  }
}

}  // namespace

void CausalAttention(const CausalAttentionParams& p, float* out, ThreadPool& pool) {
  pool.ParallelFor(p.sequences * p.heads, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) ForwardHead(p, i, out);
  });
}

void CausalAttentionBackward(const CausalAttentionParams& p, const float* out, const float* dout,
                             float* dqkv, ThreadPool& pool) {
  pool.ParallelFor(p.sequences * p.heads, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) BackwardHead(p, i, out, dout, dqkv);
  });
}

}  // namespace hanlin
