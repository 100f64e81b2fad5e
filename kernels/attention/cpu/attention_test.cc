// Attention against a reference in double, and its independence of chunks, paging and neighbours
// bit by bit.
#include "kernels/attention/cpu/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::KernelTest;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::SameBits;

constexpr int64_t kBlockTokens = kKvBlockTokens;

// A paged cache whose memory is NaN wherever no token was written, and a random order of blocks.
class Cache {
 public:
  Cache(ComputeType type, int heads, int head_dim, int64_t blocks, uint32_t seed = 9)
      : table_(blocks) {
    const size_t stride = KvBlockBytes(type, heads, head_dim) + 64;
    memory_.assign(stride * blocks + 64, 0xff);
    const size_t skip = (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64;
    view_ = {type, heads, head_dim, memory_.data() + skip, stride};
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), std::mt19937(seed));
  }
  const KvCache& view() const { return view_; }
  const int32_t* table(int64_t first = 0) const { return table_.data() + first; }

 private:
  std::vector<uint8_t> memory_;
  std::vector<int32_t> table_;
  KvCache view_;
};

// q, k, v of one sequence as a fused layer leaves them: [rows][3][heads][head_dim] or
// [rows][heads][3][head_dim].
struct Sequence {
  Sequence(int64_t rows, int heads, int head_dim, uint32_t seed, bool interleaved = false)
      : rows(rows),
        heads(heads),
        head_dim(head_dim),
        row_stride(3 * heads * head_dim),
        head_stride(interleaved ? 3 * head_dim : head_dim),
        part(interleaved ? head_dim : heads * head_dim),
        qkv(RandomFloats(rows * row_stride, seed)) {}
  const float* q(int64_t row = 0, int64_t head = 0) const {
    return &qkv[row * row_stride + head * head_stride];
  }
  const float* k(int64_t row = 0, int64_t head = 0) const { return q(row, head) + part; }
  const float* v(int64_t row = 0, int64_t head = 0) const { return q(row, head) + 2 * part; }

  int64_t rows;
  int heads, head_dim;
  int64_t row_stride, head_stride, part;
  std::vector<float> qkv;
};

// Rows [first, first + rows) of the sequence as one step: writes the cache, then attends.
std::vector<float> Step(const Sequence& s, int64_t first, int64_t rows, const Cache& cache,
                        ThreadPool& pool) {
  const AttentionSegment segment{0, rows, first, cache.table()};
  WriteKv({{&segment, 1}, s.k(first), s.v(first), s.row_stride, s.head_stride, cache.view()}, pool);
  std::vector<float> out(rows * s.heads * s.head_dim, NAN);
  Attention({.segments = {&segment, 1},
             .q = s.q(first),
             .row_stride = s.row_stride,
             .head_stride = s.head_stride,
             .cache = cache.view(),
             .out = out.data(),
             .out_stride = s.heads * s.head_dim},
            pool);
  return out;
}

double Stored(float value, ComputeType type) {
  return type == ComputeType::kFloat32 ? value : ToFloat(ToBFloat16(value));
}

std::vector<double> Reference(const Sequence& s, int64_t row, int head, ComputeType type) {
  std::vector<double> weights(row + 1), out(s.head_dim, 0.0);
  double total = 0;
  for (int64_t t = 0; t <= row; ++t) {
    double dot = 0;
    for (int d = 0; d < s.head_dim; ++d) dot += s.q(row, head)[d] * Stored(s.k(t, head)[d], type);
    weights[t] = std::exp(dot / std::sqrt(static_cast<double>(s.head_dim)));
    total += weights[t];
  }
  for (int64_t t = 0; t <= row; ++t) {
    for (int d = 0; d < s.head_dim; ++d)
      out[d] += weights[t] / total * Stored(s.v(t, head)[d], type);
  }
  return out;
}

class AttentionTest : public KernelTest {};

TEST_P(AttentionTest, MatchesAReferenceForEveryHeadSizeAndCacheType) {
  ThreadPool pool(2);
  for (ComputeType type : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    for (int head_dim : {8, 16, 24, 40, 64, 80, 128}) {
      const Sequence s(53, 3, head_dim, 1, head_dim % 16 != 0);
      const Cache cache(type, 3, head_dim, 4);
      const std::vector<float> out = Step(s, 0, s.rows, cache, pool);
      for (int64_t row = 0; row < s.rows; ++row) {
        for (int head = 0; head < 3; ++head) {
          const std::vector<double> want = Reference(s, row, head, type);
          for (int d = 0; d < head_dim; ++d) {
            // Scores of about unit size, weights that sum to one, |v| up to about 4.
            ASSERT_NEAR(out[(row * 3 + head) * head_dim + d], want[d], head_dim * 0x1p-22 * 4)
                << head_dim << " row " << row << " head " << head << " d " << d;
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, ChunkBordersBlockOrderAndThreadsChangeNoBit) {
  for (ComputeType type : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    const Sequence s(75, 2, 80, 5);
    ThreadPool one(1), three(3);
    const std::vector<float> whole = Step(s, 0, s.rows, Cache(type, 2, 80, 5), one);
    for (int64_t chunk : {1, 2, 3, 7, 8, 16, 31}) {
      const Cache cache(type, 2, 80, 5, /*seed=*/static_cast<uint32_t>(chunk));
      for (int64_t first = 0; first < s.rows; first += chunk) {
        const int64_t rows = std::min(chunk, s.rows - first);
        const std::vector<float> out = Step(s, first, rows, cache, three);
        ASSERT_TRUE(SameBits(out.data(), whole.data() + first * 160, out.size()))
            << "chunks of " << chunk << " at " << first;
      }
    }
  }
}

TEST_P(AttentionTest, ASequenceAmongOthersHasTheBitsOfTheSequenceAlone) {
  const int heads = 2, dim = 16;
  ThreadPool pool(3);
  const Sequence a(40, heads, dim, 1), b(40, heads, dim, 2), c(40, heads, dim, 3);
  const Cache alone_a(ComputeType::kFloat32, heads, dim, 3),
      alone_b(ComputeType::kFloat32, heads, dim, 3), alone_c(ComputeType::kFloat32, heads, dim, 3);
  Step(a, 0, 39, alone_a, pool);
  Step(b, 0, 10, alone_b, pool);
  const std::vector<float> want_a = Step(a, 39, 1, alone_a, pool);   // decodes
  const std::vector<float> want_b = Step(b, 10, 21, alone_b, pool);  // a chunk of its prompt
  const std::vector<float> want_c = Step(c, 0, 5, alone_c, pool);    // a new prompt

  // The same three in one cache and one step: their rows are concatenated.
  const Cache shared(ComputeType::kFloat32, heads, dim, 9);
  const int32_t *table_a = shared.table(0), *table_b = shared.table(3), *table_c = shared.table(6);
  const AttentionSegment prefix_a{0, 39, 0, table_a}, prefix_b{0, 10, 0, table_b};
  WriteKv({{&prefix_a, 1}, a.k(), a.v(), a.row_stride, a.head_stride, shared.view()}, pool);
  WriteKv({{&prefix_b, 1}, b.k(), b.v(), b.row_stride, b.head_stride, shared.view()}, pool);
  std::vector<float> qkv(a.q(39), a.q(39) + a.row_stride);
  qkv.insert(qkv.end(), b.q(10), b.q(10) + 21 * b.row_stride);
  qkv.insert(qkv.end(), c.q(0), c.q(0) + 5 * c.row_stride);
  const std::vector<AttentionSegment> segments = {
      {0, 1, 39, table_a}, {1, 21, 10, table_b}, {22, 5, 0, table_c}};
  WriteKv({segments, qkv.data() + a.part, qkv.data() + 2 * a.part, a.row_stride, a.head_stride,
           shared.view()},
          pool);
  std::vector<float> out(27 * heads * dim, NAN);
  Attention({.segments = segments,
             .q = qkv.data(),
             .row_stride = a.row_stride,
             .head_stride = a.head_stride,
             .cache = shared.view(),
             .out = out.data(),
             .out_stride = heads * dim},
            pool);
  EXPECT_TRUE(SameBits(out.data(), want_a.data(), want_a.size()));
  EXPECT_TRUE(SameBits(out.data() + heads * dim, want_b.data(), want_b.size()));
  EXPECT_TRUE(SameBits(out.data() + 22 * heads * dim, want_c.data(), want_c.size()));
}

TEST_P(AttentionTest, LargeScoresNeitherOverflowNorVanish) {
  Sequence s(20, 1, 16, 4);
  for (float& value : s.qkv) value *= 30.0f;
  ThreadPool pool(1);
  const Cache cache(ComputeType::kFloat32, 1, 16, 2);
  for (float value : Step(s, 0, s.rows, cache, pool)) EXPECT_TRUE(std::isfinite(value));
}

TEST_P(AttentionTest, TheFirstTokenSeesOnlyItself) {
  const Sequence s(1, 2, 24, 6);
  ThreadPool pool(2);
  const Cache cache(ComputeType::kFloat32, 2, 24, 1);
  const std::vector<float> out = Step(s, 0, 1, cache, pool);
  for (int head = 0; head < 2; ++head) EXPECT_TRUE(SameBits(&out[head * 24], s.v(0, head), 24));
}

TEST_P(AttentionTest, RoundsOutputToBFloat16) {
  const Sequence s(21, 2, 24, 7);
  ThreadPool pool(2);
  const Cache cache(ComputeType::kBFloat16, 2, 24, 2);
  const std::vector<float> wide = Step(s, 0, s.rows, cache, pool);
  std::vector<BFloat16> narrow(wide.size());
  const AttentionSegment segment{0, s.rows, 0, cache.table()};
  Attention({.segments = {&segment, 1},
             .q = s.q(),
             .row_stride = s.row_stride,
             .head_stride = s.head_stride,
             .cache = cache.view(),
             .out = narrow.data(),
             .out_stride = 48,
             .out_type = ComputeType::kBFloat16},
            pool);
  for (size_t i = 0; i < wide.size(); ++i) EXPECT_EQ(narrow[i].bits, ToBFloat16(wide[i]).bits);
}

TEST(KvBlock, HoldsKeysAndValuesOfSixteenTokensWithValuesPaddedToSixteen) {
  EXPECT_EQ(KvBlockBytes(ComputeType::kFloat32, 12, 64), 12u * (64 + 64) * 16 * 4);
  EXPECT_EQ(KvBlockBytes(ComputeType::kBFloat16, 1, 24), (24u + 32) * kBlockTokens * 2);
}

INSTANTIATE_KERNEL_TEST(AttentionTest);

}  // namespace
}  // namespace hanlin
