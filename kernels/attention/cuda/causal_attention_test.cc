// Causal attention for training on the GPU against the CPU kernels, with documents and dropout,
// over edge lengths; the same bits again and beside other sequences.
#include "kernels/attention/cuda/causal_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/attention/cpu/causal_attention.h"

namespace hanlin {
namespace {

constexpr auto kBf16 = ComputeType::kBFloat16;
constexpr auto kFp32 = ComputeType::kFloat32;

static_assert(kHeadColumns == kMaxTrainLength);

TEST(CausalAttentionCudaTest, RefusesBadParametersBeforeAnyLaunch) {
  alignas(16) char memory[64] = {};
  const CudaCausalAttentionParams good = {.sequences = 1,
                                          .length = 1,
                                          .heads = 1,
                                          .head_dim = 8,
                                          .qkv = memory,
                                          .log_sum = reinterpret_cast<float*>(memory)};
  const auto code = [&](auto change, void* out) {
    CudaCausalAttentionParams p = good;
    change(p);
    return CudaCausalAttention(p, out, nullptr).code();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](auto& p) { p.head_dim = 12; }, memory), kInvalid);
  EXPECT_EQ(code([](auto& p) { p.head_dim = 136; }, memory), kInvalid);
  EXPECT_EQ(code([](auto& p) { p.heads = 0; }, memory), kInvalid);
  EXPECT_EQ(code([](auto& p) { p.sequences = 1 << 16; }, memory), kInvalid);
  EXPECT_EQ(code([](auto& p) { p.length = kMaxTrainLength + 1; }, memory), kInvalid);
  EXPECT_EQ(code([](auto& p) { p.scale = 0; }, memory), kInvalid);
  EXPECT_EQ(code([](auto& p) { p.dropout.rate = 1; }, memory), kInvalid);
  EXPECT_EQ(code([](auto& p) { p.qkv = nullptr; }, memory), kInvalid);
  EXPECT_EQ(code([](auto&) {}, memory + 4), kInvalid);
  EXPECT_EQ(code([](auto& p) { p.length = 0; }, nullptr), absl::StatusCode::kOk);
  auto* const floats = reinterpret_cast<float*>(memory);
  const auto backward = [&](const CudaCausalAttentionGradients& gradients) {
    return CudaCausalAttentionBackward(good, gradients, nullptr).code();
  };
  EXPECT_EQ(backward({memory, memory, memory, floats, nullptr}), kInvalid);
  EXPECT_EQ(backward({memory, memory, memory, nullptr, memory}), kInvalid);
}

enum class Documents { kNone, kDoubling, kLate };

struct Case {
  ComputeType type;
  int64_t sequences, length, heads, head_dim;
  Documents documents = Documents::kNone;
  float dropout = 0;
  int64_t tokens() const { return sequences * length; }
  int64_t width() const { return heads * head_dim; }
};

// Tensors of a call; those of the device as numbers.
struct Results {
  std::vector<float> out, log_sum, dqkv, dbias;
};

std::vector<float> Random(int64_t count, uint32_t seed, ComputeType type) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    value = normal(random);
    if (type == kBf16) value = ToFloat(ToBFloat16(value));
  }
  return values;
}

std::vector<uint8_t> Encode(const std::vector<float>& values, ComputeType type) {
  std::vector<uint8_t> bytes(values.size() * SizeOf(type));
  if (type == kFp32) std::memcpy(bytes.data(), values.data(), bytes.size());
  for (size_t i = 0; i < values.size() && type == kBf16; ++i) {
    const BFloat16 half = ToBFloat16(values[i]);
    std::memcpy(&bytes[2 * i], &half, 2);
  }
  return bytes;
}
std::vector<float> Decode(const std::vector<uint8_t>& bytes, ComputeType type) {
  std::vector<float> values(bytes.size() / SizeOf(type));
  if (type == kFp32) std::memcpy(values.data(), bytes.data(), bytes.size());
  for (size_t i = 0; i < values.size() && type == kBf16; ++i) {
    BFloat16 half;
    std::memcpy(&half, &bytes[2 * i], 2);
    values[i] = ToFloat(half);
  }
  return values;
}

constexpr float kBiasBefore = 0.5f;

struct Problem {
  explicit Problem(const Case& c)
      : c(c),
        qkv(Random(c.tokens() * 3 * c.width(), 1, c.type)),
        dout(Random(c.tokens() * c.width(), 2, c.type)) {
    for (int64_t t = 0; t < c.tokens() && c.documents != Documents::kNone; ++t) {
      const int64_t position = t % c.length, late = c.length / 2 + t / c.length;
      int64_t begin = 0;
      if (c.documents == Documents::kLate) begin = position < late ? 0 : late;
      for (int64_t size = 1; c.documents == Documents::kDoubling && begin + size <= position;
           size *= 2) {
        begin += size;
      }
      document_begin.push_back(static_cast<int32_t>(begin));
    }
    dropout = {c.dropout, 0x123456789abcdefull, 7, 5, 11};
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(c.head_dim)); }

  Results OnCpu() const {
    Results r = {std::vector<float>(c.tokens() * c.width()),
                 std::vector<float>(c.tokens() * c.heads), std::vector<float>(qkv.size())};
    const CausalAttentionParams p = {
        .sequences = c.sequences,
        .length = c.length,
        .heads = c.heads,
        .head_dim = c.head_dim,
        .qkv = qkv.data(),
        .document_begin = document_begin.empty() ? nullptr : document_begin.data(),
        .scale = scale(),
        .first_head = 3,
        .dropout = dropout,
        .log_sum = r.log_sum.data()};
    ThreadPool pool(1);
    CausalAttention(p, r.out.data(), pool);
    CausalAttentionBackward(p, r.out.data(), dout.data(), r.dqkv.data(), pool);
    std::vector<double> sums(3 * c.width(), kBiasBefore);
    for (size_t i = 0; i < r.dqkv.size(); ++i) sums[i % sums.size()] += r.dqkv[i];
    r.dbias.assign(sums.begin(), sums.end());
    return r;
  }

  Case c;
  std::vector<float> qkv, dout;
  std::vector<int32_t> document_begin;
  DropoutParams dropout;
};

class CausalAttentionGpuTest : public HopperTest {
 protected:
  Results Run(const Problem& problem) {
    const Case& c = problem.c;
    const auto qkv = OnDevice(Encode(problem.qkv, c.type));
    const auto dout = OnDevice(Encode(problem.dout, c.type));
    const auto begin = OnDevice(problem.document_begin);
    // All ones: NaN where nothing is written.
    const auto out = OnDevice(std::vector<uint8_t>(dout.size(), 0xff));
    const auto dqkv = OnDevice(std::vector<uint8_t>(qkv.size(), 0xff));
    const auto log_sum = OnDevice(std::vector<float>(c.tokens() * c.heads, NAN));
    const auto dbias = OnDevice(std::vector<float>(3 * c.width(), kBiasBefore));
    const CudaCausalAttentionParams p = {.type = c.type,
                                         .sequences = c.sequences,
                                         .length = c.length,
                                         .heads = c.heads,
                                         .head_dim = c.head_dim,
                                         .qkv = qkv.data(),
                                         .document_begin = begin.data(),
                                         .scale = problem.scale(),
                                         .first_head = 3,
                                         .dropout = problem.dropout,
                                         .log_sum = log_sum.data()};
    const auto workspace = OnDevice(std::vector<uint8_t>(CausalAttentionWorkspaceBytes(p), 0xff));
    EXPECT_TRUE(CudaCausalAttention(p, out.data(), stream_.get()).ok());
    EXPECT_TRUE(CudaCausalAttentionBackward(
                    p, {out.data(), dout.data(), dqkv.data(), dbias.data(), workspace.data()},
                    stream_.get())
                    .ok());
    return {Decode(FromDevice(out), c.type), FromDevice(log_sum), Decode(FromDevice(dqkv), c.type),
            FromDevice(dbias)};
  }

  // The error of fp32 sums, or of bf16's 2^-9 in what goes into the products and comes out.
  static void ExpectNear(const Case& c, const char* name, const std::vector<float>& got,
                         const std::vector<float>& want) {
    const double relative = c.type == kFp32 ? 1e-5 : 5e-3, single = c.type == kFp32 ? 1e-4 : 0x1p-5;
    ASSERT_EQ(got.size(), want.size());
    double errors = 0, squares = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double error = got[i] - want[i];
      ASSERT_LE(std::abs(error), single * (1 + std::abs(want[i]))) << name << " " << i;
      errors += error * error;
      squares += want[i] * want[i];
    }
    EXPECT_LE(std::sqrt(errors), relative * std::sqrt(squares) + 1e-5) << name;
  }

  // Sums over tokens have the errors of what they add, which mostly cancel.
  static void ExpectSumsNear(const Case& c, const Results& got, const Results& want) {
    const size_t width = want.dbias.size();
    std::vector<double> squares(width);
    for (size_t i = 0; i < want.dqkv.size(); ++i) {
      squares[i % width] += 0.1 + want.dqkv[i] * want.dqkv[i];
    }
    ASSERT_EQ(got.dbias.size(), width);
    for (size_t i = 0; i < width; ++i) {
      const double single = c.type == kFp32 ? 1e-4 : 0x1p-5;
      ASSERT_NEAR(got.dbias[i], want.dbias[i], single * std::sqrt(squares[i])) << "dbias " << i;
    }
  }

  void CompareWithCpu(const Case& c) {
    SCOPED_TRACE(::testing::Message()
                 << (c.type == kBf16 ? "bf16 " : "fp32 ") << c.sequences << " of " << c.length
                 << ", " << c.heads << " heads of " << c.head_dim << ", documents "
                 << static_cast<int>(c.documents) << ", dropout " << c.dropout);
    const Problem problem(c);
    const Results want = problem.OnCpu(), got = Run(problem);
    ExpectNear(c, "out", got.out, want.out);
    ExpectNear(c, "log_sum", got.log_sum, want.log_sum);
    ExpectNear(c, "dqkv", got.dqkv, want.dqkv);
    ExpectSumsNear(c, got, want);
  }
};

// What the sanitizers run: rings that go round, blocks in a pair and one in the middle.
TEST_F(CausalAttentionGpuTest, AFewSmallShapes) {
  for (int64_t dim : {64, 80, 128}) {
    CompareWithCpu({kBf16, 1, 340, 1, dim});
    CompareWithCpu({kBf16, 1, 340, 1, dim, Documents::kLate, 0.1f});
  }
  CompareWithCpu({kBf16, 1, 20, 1, 24, Documents::kLate, 0.1f});
}

TEST_F(CausalAttentionGpuTest, PlainMatchesTheCpuForAnyHeadSizeAndType) {
  for (int64_t dim : {8, 24, 64, 80, 128}) {
    CompareWithCpu({kFp32, 2, 21, 3, dim});
    CompareWithCpu({kFp32, 1, 150, 2, dim, Documents::kDoubling, 0.3f});
  }
  for (int64_t dim : {8, 40, 120}) CompareWithCpu({kBf16, 2, 70, 2, dim, Documents::kLate, 0.1f});
}

TEST_F(CausalAttentionGpuTest, TensorCoresMatchTheCpuAtEdgeLengths) {
  for (int64_t dim : {64, 80, 128}) {
    for (int64_t length : {1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 513}) {
      CompareWithCpu({kBf16, 2, length, 3, dim});
    }
    CompareWithCpu({kBf16, 1, 1500, 1, dim});
  }
}

// More than one for each multiprocessor: blocks alone, in pairs, and pairs with one in the middle.
TEST_F(CausalAttentionGpuTest, ThreadBlocksServeSeveralBlocksOfRows) {
  CompareWithCpu({kBf16, 24, 150, 12, 64});
  CompareWithCpu({kBf16, 6, 300, 13, 80, Documents::kLate, 0.1f});
  CompareWithCpu({kBf16, 24, 320, 12, 80});
  CompareWithCpu({kBf16, 5, 513, 28, 80, Documents::kDoubling});
  CompareWithCpu({kBf16, 5, 300, 14, 128, Documents::kDoubling});
  CompareWithCpu({kBf16, 5, 513, 28, 64, Documents::kLate, 0.1f});
  CompareWithCpu({kBf16, 3, 700, 24, 64, Documents::kDoubling, 0.1f});
}

TEST_F(CausalAttentionGpuTest, TensorCoresHideOtherDocuments) {
  for (int64_t dim : {64, 80, 128}) {
    for (int64_t length : {30, 150, 257, 700}) {
      CompareWithCpu({kBf16, 3, length, 2, dim, Documents::kDoubling});
      CompareWithCpu({kBf16, 3, length, 2, dim, Documents::kLate});
    }
  }
}

TEST_F(CausalAttentionGpuTest, TensorCoresDropWhatTheCpuDrops) {
  for (int64_t dim : {64, 80, 128}) {
    for (int64_t length : {5, 65, 200, 450}) {
      CompareWithCpu({kBf16, 2, length, 2, dim, Documents::kNone, 0.4f});
      CompareWithCpu({kBf16, 2, length, 2, dim, Documents::kLate, 0.1f});
    }
  }
}

TEST_F(CausalAttentionGpuTest, GivesTheSameBitsAgainAndBesideOtherSequences) {
  for (int64_t dim : {24, 64, 80, 128}) {
    const Problem both({kBf16, 2, 300, 2, dim});
    const Results first = Run(both), again = Run(both);
    EXPECT_TRUE(first.out == again.out && first.log_sum == again.log_sum &&
                first.dqkv == again.dqkv && first.dbias == again.dbias)
        << dim;
    Problem alone({kBf16, 1, 300, 2, dim});
    alone.qkv.assign(both.qkv.begin() + alone.qkv.size(), both.qkv.end());
    alone.dout.assign(both.dout.begin() + alone.dout.size(), both.dout.end());
    const Results second = Run(alone);
    EXPECT_TRUE(
        std::equal(second.out.begin(), second.out.end(), first.out.begin() + second.out.size()));
    EXPECT_TRUE(std::equal(second.dqkv.begin(), second.dqkv.end(),
                           first.dqkv.begin() + second.dqkv.size()));
  }
}

// Tiles that reach behind a sequence hold zeros there, not what comes behind it in memory.
TEST_F(CausalAttentionGpuTest, ReadsNothingOfTheNextSequence) {
  for (int64_t dim : {64, 80, 128}) {
    Problem problem({kBf16, 2, 130, 2, dim});
    const Results want = Run(problem);
    std::fill(problem.qkv.begin() + problem.qkv.size() / 2, problem.qkv.end(), NAN);
    const Results got = Run(problem);
    EXPECT_TRUE(
        std::equal(want.out.begin(), want.out.begin() + want.out.size() / 2, got.out.begin()));
    EXPECT_TRUE(
        std::equal(want.dqkv.begin(), want.dqkv.begin() + want.dqkv.size() / 2, got.dqkv.begin()));
  }
}

TEST_F(CausalAttentionGpuTest, GivesTheSameBitsAgainWhereThreadBlocksServeSeveral) {
  for (const Case& c :
       {Case{kBf16, 5, 513, 28, 64, Documents::kLate, 0.1f}, Case{kBf16, 24, 320, 12, 64},
        Case{kBf16, 6, 300, 13, 80, Documents::kDoubling, 0.1f}, Case{kBf16, 24, 320, 12, 80},
        Case{kBf16, 5, 300, 14, 128}}) {
    const Problem problem(c);
    const Results first = Run(problem), again = Run(problem);
    EXPECT_TRUE(first.out == again.out && first.log_sum == again.log_sum &&
                first.dqkv == again.dqkv && first.dbias == again.dbias)
        << c.length << " " << c.head_dim;
  }
}

TEST_F(CausalAttentionGpuTest, LargeScoresNeitherOverflowNorVanish) {
  for (int64_t dim : {24, 64, 80, 128}) {
    Problem problem({kBf16, 1, 200, 2, dim, Documents::kLate, 0.1f});
    for (float& value : problem.qkv) value *= 32.0f;
    const Results got = Run(problem);
    for (float value : got.out) ASSERT_TRUE(std::isfinite(value));
    for (float value : got.dqkv) ASSERT_TRUE(std::isfinite(value));
  }
}

}  // namespace
}  // namespace hanlin
