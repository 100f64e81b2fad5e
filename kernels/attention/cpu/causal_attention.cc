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

  // Where position 0 of q (0), k (1) or v (2) is in a [tokens, 3, heads, head_dim] array, and of
  // the output in a [tokens, heads, head_dim] one.
  int64_t QkvOffset(int which) const {
    return sequence_ * p_.length * qkv_stride() + (which * p_.heads + head_) * p_.head_dim;
  }
  ConstArray Qkv(int which) const { return p_.qkv.From(QkvOffset(which)); }
  int64_t OutOffset() const { return sequence_ * p_.length * out_stride() + head_ * p_.head_dim; }
  int64_t qkv_stride() const { return 3 * p_.heads * p_.head_dim; }
  int64_t out_stride() const { return p_.heads * p_.head_dim; }
  float* log_sum() const { return p_.log_sum + (sequence_ * p_.heads + head_) * p_.length; }

  // scores[queries, keys] = x y^T with rows of head_dim.
  void Scores(const Block& b, ConstArray x, int64_t x_stride, ConstArray y, float* scores) const {
    MatMulParams m = {.m = b.queries(), .n = b.keys(), .k = p_.head_dim};
    m.a = x.From(b.query_begin * x_stride);
    m.a_stride = x_stride;
    m.b = y.From(b.key_begin * qkv_stride());
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

// c [m rows of queries or keys, head_dim] (+)= op(scores) b
void Apply(const CausalAttentionParams& p, const Block& block, const float* scores, bool transposed,
           ConstArray b, int64_t b_stride, float* c) {
  MatMulParams m = {.m = transposed ? block.keys() : block.queries(), .n = p.head_dim};
  m.type = p.operands;
  m.k = transposed ? block.queries() : block.keys();
  m.a = scores;
  m.a_stride = block.keys();
  m.a_transposed = transposed;
  m.b = b;
  m.b_stride = b_stride;
  m.accumulate = transposed;
  m.c = c;
  m.c_stride = p.head_dim;
  MatMulOnThisThread(m);
}

// rows [count, head_dim] to an array whose rows are `stride` elements apart.
void StoreRows(const CausalAttentionParams& p, const float* rows, int64_t count, Array to,
               int64_t stride) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kCausalAttentionKernels);
  for (int64_t i = 0; i < count; ++i) {
    kernels.store(rows + i * p.head_dim, p.head_dim, to.From(i * stride).data, to.type);
  }
}

// At least `size` floats; they keep what they held.
float* Room(std::vector<float>& buffer, int64_t size) {
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
  return buffer.data();
}

void ForwardHead(const CausalAttentionParams& p, int64_t index, Array out) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kCausalAttentionKernels);
  const auto& elementwise = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  const Head head(p, index);
  thread_local std::vector<float> scores_of, rows_of;
  float* const scores = Room(scores_of, kQueryBlock * (p.length + kKeyAlignment));
  float* const rows = Room(rows_of, kQueryBlock * p.head_dim);
  for (int64_t begin = 0; begin < p.length; begin += kQueryBlock) {
    const Block b = head.BlockAt(begin);
    head.Scores(b, head.Qkv(0), head.qkv_stride(), head.Qkv(1), scores);
    head.ForRows(b, scores, [&](int64_t q, int64_t first, int64_t count, float* row) {
      head.log_sum()[q] = kernels.softmax(row + first, count, p.scale);
      if (p.dropout.rate > 0) head.Dropout(elementwise, b, q, row);
    });
    Apply(p, b, scores, false, head.Qkv(2).From(b.key_begin * head.qkv_stride()), head.qkv_stride(),
          rows);
    StoreRows(p, rows, b.queries(), out.From(head.OutOffset() + b.query_begin * head.out_stride()),
              head.out_stride());
  }
}

void BackwardHead(const CausalAttentionParams& p, int64_t index, ConstArray out, const float* dout,
                  Array dqkv) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kCausalAttentionKernels);
  const auto& elementwise = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  const Head head(p, index);
  const int64_t stride = head.qkv_stride();
  const int64_t scores_size = kQueryBlock * (p.length + kKeyAlignment);
  thread_local std::vector<float> probability_of, dropped_of, gradient_of, sums_of;
  float* const probability = Room(probability_of, scores_size);
  float* const dropped = p.dropout.rate > 0 ? Room(dropped_of, scores_size) : probability;
  float* const gradient = Room(gradient_of, scores_size);
  // dq of a block, and the sums of dk and dv, which wait for the last block.
  const int64_t sums_size = p.length * p.head_dim;
  float* const dq = Room(sums_of, kQueryBlock * p.head_dim + 2 * sums_size);
  float* const dk = dq + kQueryBlock * p.head_dim;
  float* const dv = dk + sums_size;
  std::fill_n(dk, 2 * sums_size, 0.0f);
  const float* const head_dout = dout + head.OutOffset();
  for (int64_t begin = 0; begin < p.length; begin += kQueryBlock) {
    const Block b = head.BlockAt(begin);
    const int64_t key_offset = b.key_begin * stride, query_offset = b.query_begin * stride;
    head.Scores(b, head.Qkv(0), stride, head.Qkv(1), probability);
    head.ForRows(b, probability, [&](int64_t q, int64_t first, int64_t count, float* row) {
      kernels.probabilities(row + first, count, p.scale, head.log_sum()[q]);
      if (p.dropout.rate > 0) {
        float* const copy = dropped + (row - probability);
        std::memcpy(copy, row, b.keys() * sizeof(float));
        head.Dropout(elementwise, b, q, copy);
      }
    });
    Apply(p, b, dropped, true, head_dout + b.query_begin * head.out_stride(), head.out_stride(),
          dv + b.key_begin * p.head_dim);
    head.Scores(b, head_dout, head.out_stride(), head.Qkv(2), gradient);
    head.ForRows(b, gradient, [&](int64_t q, int64_t first, int64_t count, float* row) {
      if (p.dropout.rate > 0) head.Dropout(elementwise, b, q, row);
      // sum(dP P) = sum(dO O), with dropout as without it.
      const int64_t at = q * head.out_stride();
      const float delta =
          kernels.dot(head_dout + at, out.From(head.OutOffset() + at).data, out.type, p.head_dim);
      kernels.dscores(probability + (row - gradient) + first, count, delta, p.scale, row + first);
    });
    Apply(p, b, gradient, false, head.Qkv(1).From(key_offset), stride, dq);
    StoreRows(p, dq, b.queries(), dqkv.From(head.QkvOffset(0) + query_offset), stride);
    Apply(p, b, gradient, true, head.Qkv(0).From(query_offset), stride,
          dk + b.key_begin * p.head_dim);
  }
  StoreRows(p, dk, p.length, dqkv.From(head.QkvOffset(1)), stride);
  StoreRows(p, dv, p.length, dqkv.From(head.QkvOffset(2)), stride);
}

}  // namespace

void CausalAttention(const CausalAttentionParams& p, Array out, ThreadPool& pool) {
  pool.ParallelFor(p.sequences * p.heads, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) ForwardHead(p, i, out);
  });
}

void CausalAttentionBackward(const CausalAttentionParams& p, ConstArray out, const float* dout,
                             Array dqkv, ThreadPool& pool) {
  pool.ParallelFor(p.sequences * p.heads, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) BackwardHead(p, i, out, dout, dqkv);
  });
}

}  // namespace hanlin
