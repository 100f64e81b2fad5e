// Causal attention with documents against double arithmetic; gradients by finite differences;
// dropout and threads.
#include "kernels/attention/cpu/causal_attention.h"

#include <cmath>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using testing::RandomFloats;

class CausalAttentionTest : public testing::KernelTest {};

struct Problem {
  CausalAttentionParams params;
  std::vector<float> qkv, log_sum, out, dout, dqkv;
  std::vector<int32_t> document_begin;
};

Problem Make(int64_t sequences, int64_t length, int64_t heads, int64_t head_dim, bool documents) {
  Problem p;
  const int64_t tokens = sequences * length;
  p.qkv = RandomFloats(tokens * 3 * heads * head_dim, 1);
  p.dout = RandomFloats(tokens * heads * head_dim, 2);
  p.log_sum.resize(tokens * heads);
  p.out.resize(p.dout.size());
  p.dqkv.assign(p.qkv.size(), 9.0f);
  for (int64_t t = 0; t < tokens && documents; ++t) {
    const int64_t position = t % length;  // documents of 1, 2, 4, … tokens
    int64_t begin = 0;
    for (int64_t size = 1; begin + size <= position; size *= 2) begin += size;
    p.document_begin.push_back(static_cast<int32_t>(begin));
  }
  p.params = {.sequences = sequences, .length = length, .heads = heads, .head_dim = head_dim};
  p.params.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  return p;
}

void Compute(Problem& p, int threads) {
  ThreadPool pool(threads);
  p.params.qkv = p.qkv.data();
  p.params.document_begin = p.document_begin.empty() ? nullptr : p.document_begin.data();
  p.params.log_sum = p.log_sum.data();
  CausalAttention(p.params, p.out.data(), pool);
  CausalAttentionBackward(p.params, p.out.data(), p.dout.data(), p.dqkv.data(), pool);
}

std::vector<double> InDouble(const Problem& p, const std::vector<double>& qkv) {
  const int64_t sequences = p.params.sequences, length = p.params.length;
  const int64_t heads = p.params.heads, d = p.params.head_dim;
  std::vector<double> out(sequences * length * heads * d);
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t h = 0; h < heads; ++h) {
      const auto at = [&](int64_t t, int which, int64_t i) {
        return qkv[(((s * length + t) * 3 + which) * heads + h) * d + i];
      };
      for (int64_t q = 0; q < length; ++q) {
        const int64_t first = p.document_begin.empty() ? 0 : p.document_begin[s * length + q];
        std::vector<double> weight;
        double sum = 0;
        for (int64_t k = first; k <= q; ++k) {
          double dot = 0;
          for (int64_t i = 0; i < d; ++i) dot += at(q, 0, i) * at(k, 1, i);
          weight.push_back(std::exp(dot * p.params.scale));
          sum += weight.back();
        }
        for (int64_t k = first; k <= q; ++k) {
          for (int64_t i = 0; i < d; ++i) {
            out[((s * length + q) * heads + h) * d + i] += weight[k - first] / sum * at(k, 2, i);
          }
        }
      }
    }
  }
  return out;
}

TEST_P(CausalAttentionTest, ForwardAndGradientsMatchDoubleArithmetic) {
  for (const bool documents : {false, true}) {
    Problem p = Make(2, 21, 2, 5, documents);
    Compute(p, 3);
    std::vector<double> qkv(p.qkv.begin(), p.qkv.end());
    const std::vector<double> want = InDouble(p, qkv);
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(p.out[i], want[i], 2e-6);
    const auto objective = [&] {
      const std::vector<double> out = InDouble(p, qkv);
      double total = 0;
      for (size_t i = 0; i < out.size(); ++i) total += out[i] * p.dout[i];
      return total;
    };
    for (size_t i = 0; i < qkv.size(); i += 3) {
      const double before = qkv[i], h = 1e-5;
      qkv[i] = before + h;
      const double up = objective();
      qkv[i] = before - h;
      const double slope = (up - objective()) / (2 * h);
      qkv[i] = before;
      ASSERT_NEAR(p.dqkv[i], slope, 2e-5) << "element " << i << " documents " << documents;
    }
  }
}

TEST_P(CausalAttentionTest, LongSequencesCrossBlocksAndThreadsChangeNoBit) {
  Problem one = Make(2, 150, 3, 16, true), four = one;
  Compute(one, 1);
  Compute(four, 4);
  const std::vector<double> want = InDouble(one, {one.qkv.begin(), one.qkv.end()});
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(one.out[i], want[i], 3e-6);
  EXPECT_TRUE(testing::SameBits(one.out.data(), four.out.data(), one.out.size()));
  EXPECT_TRUE(testing::SameBits(one.dqkv.data(), four.dqkv.data(), one.dqkv.size()));
}

// The gradient with dropout is that of a fixed linear mask: moving v along a direction moves out by
// exactly what the backward pass says, because out is linear in v.
TEST_P(CausalAttentionTest, DropoutIsTheSameInBothDirections) {
  Problem p = Make(1, 70, 2, 8, false);
  p.params.dropout = {0.4f, 5, 1, 2, 0};
  Compute(p, 2);
  Problem moved = p;
  const std::vector<float> step = RandomFloats(p.qkv.size(), 9);
  double predicted = 0;
  for (size_t i = 0; i < p.qkv.size(); ++i) {
    const bool is_v = i / (2 * 8) % 3 == 2;
    if (!is_v) continue;
    moved.qkv[i] += step[i];
    predicted += double{step[i]} * p.dqkv[i];
  }
  Compute(moved, 2);
  double change = 0;
  for (size_t i = 0; i < p.out.size(); ++i) {
    change += (double{moved.out[i]} - p.out[i]) * p.dout[i];
  }
  EXPECT_NEAR(change, predicted, 1e-3);
  Problem plain = Make(1, 70, 2, 8, false);
  Compute(plain, 2);
  EXPECT_FALSE(testing::SameBits(plain.out.data(), p.out.data(), p.out.size()));
}

TEST_P(CausalAttentionTest, AHeadDrawsTheSameMaskOnEveryRank) {
  Problem both = Make(1, 20, 2, 4, false);
  both.params.dropout = {0.5f, 5, 1, 2, 0};
  Compute(both, 1);
  Problem second = Make(1, 20, 1, 4, false);
  second.params.dropout = both.params.dropout;
  second.params.first_head = 1;
  for (int64_t row = 0; row < 20 * 3; ++row) {
    std::copy_n(both.qkv.data() + (row * 2 + 1) * 4, 4, second.qkv.data() + row * 4);
  }
  Compute(second, 1);
  for (int64_t t = 0; t < 20; ++t) {
    for (int i = 0; i < 4; ++i) EXPECT_EQ(second.out[t * 4 + i], both.out[(t * 2 + 1) * 4 + i]);
  }
}

// What products read is rounded by them or before them: the same bits but for delta, which is a sum
// of what forward wrote.
TEST_P(CausalAttentionTest, ArraysInBf16AreThoseOfFp32Rounded) {
  Problem p = Make(2, 70, 2, 24, true);
  p.params.operands = ComputeType::kBFloat16;
  p.params.dropout = {0.2f, 5, 1, 2, 0};
  Compute(p, 2);
  const auto qkv = testing::Convert<BFloat16>(p.qkv);
  std::vector<BFloat16> out(p.out.size()), dqkv(p.dqkv.size());
  std::vector<float> log_sum(p.log_sum.size());
  ThreadPool pool(2);
  CausalAttentionParams params = p.params;
  params.qkv = qkv.data();
  params.log_sum = log_sum.data();
  CausalAttention(params, out.data(), pool);
  CausalAttentionBackward(params, out.data(), p.dout.data(), dqkv.data(), pool);
  EXPECT_TRUE(testing::SameBits(log_sum.data(), p.log_sum.data(), log_sum.size()));
  for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i].bits, ToBFloat16(p.out[i]).bits);
  EXPECT_LT(testing::RelativeError(testing::ToFloats(dqkv), p.dqkv), 5e-3);
}

INSTANTIATE_KERNEL_TEST(CausalAttentionTest);

}  // namespace
}  // namespace hanlin
