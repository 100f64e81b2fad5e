// Decode and prefill against a reference in double over edge lengths,
// and their independence of chunks, paging, batch and block layout bit by bit.
#include "kernels/attention/cuda/paged_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/attention/cuda/paged_attention_testing.h"

namespace hanlin {
namespace {

TEST(PagedAttentionTest, RefusesBadParametersBeforeAnyLaunch) {
  alignas(16) char memory[64] = {};
  const PagedKv kv{.heads = 1,
                   .head_dim = 8,
                   .base = memory,
                   .block_tables = reinterpret_cast<int32_t*>(memory),
                   .table_stride = 1};
  const DecodeAttentionParams decode{.kv = kv,
                                     .batch = 1,
                                     .context = reinterpret_cast<int32_t*>(memory),
                                     .qkv = memory + 2,
                                     .out = memory};
  const DecodeAttentionPlan plan{.plain = true};
  EXPECT_EQ(DecodeAttention(decode, plan, nullptr).code(), absl::StatusCode::kInvalidArgument);
  PrefillAttentionParams prefill{.kv = kv,
                                 .num_segments = 1,
                                 .max_tokens = 1,
                                 .tokens = 1,
                                 .segments = reinterpret_cast<PrefillSegment*>(memory),
                                 .qkv = memory,
                                 .out = memory};
  prefill.kv.head_dim = 12;
  EXPECT_EQ(PrefillAttention(prefill, nullptr).code(), absl::StatusCode::kInvalidArgument);
  prefill.kv.head_dim = 64;
  prefill.tokens = 0;  // of a segment of one
  EXPECT_EQ(PrefillAttention(prefill, nullptr).code(), absl::StatusCode::kInvalidArgument);
}

// Bytes that no kernel should leave behind where it has something to write.
std::vector<uint8_t> Canary(size_t size) { return std::vector<uint8_t>(size, 0xa5); }

class PagedAttentionGpuTest : public GpuTest {
 protected:
  // A cache on the device with what the kernels read of it.
  struct DeviceCache {
    DeviceBuffer<uint8_t> bytes;
    DeviceBuffer<int32_t> tables;
    PagedKv view;
  };
  DeviceCache Upload(const Shape& shape, const Cache& cache) {
    DeviceCache result{OnDevice(cache.Bytes()), OnDevice(cache.tables()), {}};
    result.view = {shape.type,          shape.heads,          shape.head_dim,
                   result.bytes.data(), result.tables.data(), cache.stride()};
    return result;
  }

  DecodeAttentionPlan Plan(const Shape& shape, int batch) {
    const auto plan = PlanDecodeAttention(shape.type, batch, shape.heads, shape.head_dim, device_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return *plan;
  }

  std::vector<uint8_t> RunDecode(const DeviceCache& cache, const std::vector<float>& qkv,
                                 const std::vector<int32_t>& context,
                                 const DecodeAttentionPlan& plan) {
    const auto rows = OnDevice(Encode(qkv, cache.view.type));
    const auto contexts = OnDevice(context);
    const auto out = OnDevice(Canary(rows.size() / 3));
    const absl::Status launched = DecodeAttention({.kv = cache.view,
                                                   .batch = static_cast<int>(context.size()),
                                                   .context = contexts.data(),
                                                   .qkv = rows.data(),
                                                   .out = out.data()},
                                                  plan, stream_.get());
    EXPECT_TRUE(launched.ok()) << launched;
    return FromDevice(out);
  }

  // Writes K and V of the segments' rows and attends.
  std::vector<uint8_t> RunPrefill(const DeviceCache& cache, const std::vector<float>& qkv,
                                  const std::vector<PrefillSegment>& segments) {
    const auto rows = OnDevice(Encode(qkv, cache.view.type));
    const auto on_device = OnDevice(segments);
    const auto out = OnDevice(Canary(rows.size() / 3));
    int longest = 0;
    for (const PrefillSegment& s : segments) longest = std::max(longest, s.num_tokens);
    const PrefillAttentionParams params{
        .kv = cache.view,
        .num_segments = static_cast<int>(segments.size()),
        .max_tokens = longest,
        .tokens = static_cast<int>(qkv.size() / (3 * cache.view.heads * cache.view.head_dim)),
        .plain = !device_.hopper,
        .segments = on_device.data(),
        .qkv = rows.data(),
        .out = out.data()};
    const absl::Status launched = PrefillAttention(params, stream_.get());
    EXPECT_TRUE(launched.ok()) << launched;
    return FromDevice(out);
  }

  // `out` is row `token` of `s`, [heads][head_dim]. `weight_error`: relative rounding of weights.
  static int CountWrong(const Sequence& s, int64_t token, const float* out, double weight_error) {
    int wrong = 0;
    std::vector<double> want, size;
    for (int head = 0; head < s.shape.heads; ++head) {
      s.Expect(token, head, &want, &size);
      for (int d = 0; d < s.shape.head_dim; ++d) {
        const double got = out[head * s.shape.head_dim + d];
        double tolerance = (2e-5 + weight_error) * size[d];
        if (s.shape.type == kBf16) tolerance += 0x1p-8 * std::abs(want[d]);
        if (std::abs(got - want[d]) <= tolerance) continue;
        if (wrong++ == 0) {
          ADD_FAILURE() << "token " << token << " head " << head << " d " << d << ": " << got
                        << ", want " << want[d] << " within " << tolerance;
        }
      }
    }
    return wrong;
  }

  void CheckDecode(const Shape& shape, const std::vector<int32_t>& contexts) {
    SCOPED_TRACE(::testing::Message() << "type " << int(shape.type) << " heads " << shape.heads
                                      << " of " << shape.head_dim);
    const int batch = static_cast<int>(contexts.size());
    Cache cache(shape, batch, *std::max_element(contexts.begin(), contexts.end()) + 1);
    Cache after = cache;
    std::vector<Sequence> sequences;
    std::vector<float> qkv;
    for (int b = 0; b < batch; ++b) {
      const int64_t old = std::max(contexts[b], 0);
      const Sequence& s = sequences.emplace_back(shape, old + 1, 100 + b);
      cache.Write(s, b, 0, contexts[b] < 0 ? 0 : old);
      after.Write(s, b, 0, contexts[b] < 0 ? 0 : old + 1);
      qkv.insert(qkv.end(), s.Rows(old, 1).begin(), s.Rows(old, 1).end());
    }
    const DeviceCache device = Upload(shape, cache);
    const std::vector<uint8_t> bytes = RunDecode(device, qkv, contexts, Plan(shape, batch));
    EXPECT_TRUE(FromDevice(device.bytes) == after.Bytes()) << "cache after the step";
    const std::vector<float> out = Decode(bytes, shape.type);
    const size_t row_bytes = shape.width() * SizeOf(shape.type);
    for (int b = 0; b < batch; ++b) {
      if (contexts[b] < 0) {
        EXPECT_TRUE(std::equal(&bytes[b * row_bytes], &bytes[b * row_bytes] + row_bytes,
                               Canary(row_bytes).begin()))
            << "padded row " << b << " was written";
      } else {
        EXPECT_EQ(CountWrong(sequences[b], contexts[b], &out[b * shape.width()], 0.0), 0);
      }
    }
  }

  void CheckPrefill(const Shape& shape, std::vector<PrefillSegment> segments) {
    SCOPED_TRACE(::testing::Message() << "type " << int(shape.type) << " heads " << shape.heads
                                      << " of " << shape.head_dim);
    int longest = 0, rows = 0;
    for (PrefillSegment& s : segments) {
      s.first_token = rows;
      rows += s.num_tokens;
      longest = std::max(longest, s.num_tokens + s.context_tokens);
    }
    Cache cache(shape, static_cast<int>(segments.size()), longest);
    Cache after = cache;
    std::vector<Sequence> sequences;
    std::vector<float> qkv;
    for (const PrefillSegment& p : segments) {
      const Sequence& s =
          sequences.emplace_back(shape, p.context_tokens + p.num_tokens, 40 + p.sequence);
      cache.Write(s, p.sequence, 0, p.context_tokens);
      after.Write(s, p.sequence, 0, p.context_tokens + p.num_tokens);
      const auto chunk = s.Rows(p.context_tokens, p.num_tokens);
      qkv.insert(qkv.end(), chunk.begin(), chunk.end());
    }
    const DeviceCache device = Upload(shape, cache);
    const std::vector<float> out = Decode(RunPrefill(device, qkv, segments), shape.type);
    EXPECT_TRUE(FromDevice(device.bytes) == after.Bytes()) << "cache after the step";
    for (size_t i = 0; i < segments.size(); ++i) {
      const PrefillSegment& p = segments[i];
      for (int t = 0; t < p.num_tokens; ++t) {
        const float* row = &out[(p.first_token + t) * shape.width()];
        const double weight_error = shape.type == kBf16 ? 0x1p-8 : 0.0;
        ASSERT_EQ(CountWrong(sequences[i], p.context_tokens + t, row, weight_error), 0)
            << "segment " << i << " row " << t;
      }
    }
  }
};

// What the sanitizers run; the rings go round.
TEST_F(PagedAttentionGpuTest, AFewSmallShapes) {
  for (int dim : {64, 80, 128}) {
    CheckDecode({kBf16, 1, dim}, {0, -1, 16, 600});  // in clusters
    CheckPrefill({kBf16, 1, dim}, {{0, 65, 300, 0}, {0, 1, 17, 1}});
  }
  device_.multiprocessors = 1;
  for (int dim : {64, 80, 128}) CheckDecode({kBf16, 1, dim}, {0, 600});
  device_.hopper = false;
  CheckDecode({kBf16, 1, 64}, {0, 40});
  CheckPrefill({kBf16, 1, 64}, {{0, 17, 3, 0}});
}

TEST_F(PagedAttentionGpuTest, DecodeMatchesTheReferenceAtEdgeLengths) {
  const std::vector<int32_t> contexts = {0, 14, -1, 15, 16, 17, 254, 255, 256, 2046, -1, 700, 31};
  for (int dim : {64, 80, 128}) {
    CheckDecode({kBf16, 3, dim}, contexts);
    CheckDecode({kBf16, 1, dim}, {2046});
    CheckDecode({kBf16, 32, dim}, {0});
    CheckDecode({kBf16, 40, dim}, {100, 257, 1, 2, 3, -1, 40, 513});  // beyond clusters
    CheckDecode({kBf16, 5, dim}, {-1, -1});
  }
}

TEST_F(PagedAttentionGpuTest, PlainDecodeMatchesTheReferenceForAnyHeadSizeAndType) {
  const std::vector<int32_t> contexts = {0, 14, -1, 15, 16, 255, 256, 600};
  for (int dim : {8, 24, 40, 64, 80, 128}) CheckDecode({kFp32, 3, dim}, contexts);
  for (int dim : {8, 40, 120}) CheckDecode({kBf16, 2, dim}, contexts);
}

TEST_F(PagedAttentionGpuTest, ThePlainPathDoesTheShapesOfTheFastOne) {
  device_.hopper = false;
  for (int dim : {64, 80, 128}) {
    CheckDecode({kBf16, 3, dim}, {0, 14, -1, 15, 16, 17, 255, 2046});
    CheckPrefill({kBf16, 2, dim}, {{0, 1, 0, 0}, {0, 17, 255, 2}, {0, 0, 9, 3}, {0, 129, 1, 1}});
  }
}

TEST_F(PagedAttentionGpuTest, EveryLayoutOfTheSameWarpsGivesTheSameBits) {
  if (!device_.hopper) GTEST_SKIP() << "not for the plain path";
  for (int dim : {64, 80, 128}) {
    const Shape shape{kBf16, 2, dim};
    const Sequence s(shape, 901, 6);
    Cache cache(shape, 1, 901);
    cache.Write(s, 0, 0, 900);
    const std::vector<float> qkv(s.Rows(900, 1).begin(), s.Rows(900, 1).end());
    std::vector<uint8_t> first;
    for (int cluster : {1, 2, 4, 8}) {
      for (int stages : {1, 2}) {
        const int warps = 16 / cluster;
        const size_t shared = warps * stages * size_t{64} * dim + 16 * (dim + 2) * 4;
        if (shared > device_.shared_memory_per_block - 1024) continue;
        const DecodeAttentionPlan plan{
            .cluster = cluster, .warps = warps, .stages = stages, .shared_bytes = shared};
        const auto out = RunDecode(Upload(shape, cache), qkv, {900}, plan);
        if (first.empty()) first = out;
        EXPECT_TRUE(out == first) << dim << ": cluster " << cluster << " stages " << stages;
      }
    }
  }
}

TEST_F(PagedAttentionGpuTest, ARequestAloneAndInABatchOf64HasTheSameBits) {
  for (const Shape shape : {Shape{kBf16, 12, 64}, Shape{kBf16, 4, 80}, Shape{kFp32, 2, 24}}) {
    const Sequence s(shape, 300, 8);
    const std::vector<float> one(s.Rows(299, 1).begin(), s.Rows(299, 1).end());
    Cache alone(shape, 1, 300, /*seed=*/1), many(shape, 64, 300, /*seed=*/2);
    alone.Write(s, 0, 0, 299);
    std::vector<float> qkv;
    for (int b = 0; b < 64; ++b) {
      many.Write(b == 37 ? s : Sequence(shape, 299, 50 + b), b, 0, 299);
      qkv.insert(qkv.end(), one.begin(), one.end());
    }
    const auto want = RunDecode(Upload(shape, alone), one, {299}, Plan(shape, 1));
    const auto out =
        RunDecode(Upload(shape, many), qkv, std::vector<int32_t>(64, 299), Plan(shape, 64));
    EXPECT_TRUE(std::equal(want.begin(), want.end(), out.begin() + 37 * want.size()))
        << shape.head_dim;
  }
}

TEST_F(PagedAttentionGpuTest, AGraphReplaysForGrowingContexts) {
  const Shape shape{kBf16, 4, 80};
  const Sequence s(shape, 40, 12);
  const DeviceCache cache = Upload(shape, Cache(shape, 1, 40));
  auto rows = OnDevice(std::vector<uint8_t>(3 * shape.width() * 2));
  auto context = OnDevice(std::vector<int32_t>(1));
  const auto out = OnDevice(Canary(shape.width() * 2));
  const auto graph = CudaGraph::Capture(stream_, [&] {
    return DecodeAttention({.kv = cache.view,
                            .batch = 1,
                            .context = context.data(),
                            .qkv = rows.data(),
                            .out = out.data()},
                           Plan(shape, 1), stream_.get());
  });
  ASSERT_TRUE(graph.ok()) << graph.status();
  for (int t = 0; t < 40; ++t) {
    const auto row = s.Rows(t, 1);
    ASSERT_TRUE(rows.CopyFrom(Encode({row.begin(), row.end()}, kBf16)).ok());
    ASSERT_TRUE(context.CopyFrom(std::vector<int32_t>{t}).ok());
    ASSERT_TRUE(graph->Launch(stream_).ok());
    const std::vector<float> got = Decode(FromDevice(out), kBf16);
    EXPECT_EQ(CountWrong(s, t, got.data(), 0.0), 0);
  }
}

TEST_F(PagedAttentionGpuTest, PrefillMatchesTheReferenceAtEdgeLengths) {
  // num_tokens, context_tokens, sequence
  const std::vector<PrefillSegment> segments = {{0, 1, 0, 0},    {0, 15, 0, 3},   {0, 16, 16, 1},
                                                {0, 17, 255, 2}, {0, 0, 9, 4},    {0, 129, 1, 5},
                                                {0, 64, 64, 6},  {0, 200, 63, 7}, {0, 1, 127, 8}};
  for (int dim : {64, 80, 128}) CheckPrefill({kBf16, 2, dim}, segments);
  for (int dim : {8, 40, 80, 128}) CheckPrefill({kFp32, 2, dim}, segments);
  CheckPrefill({kBf16, 3, 24}, segments);
}

TEST_F(PagedAttentionGpuTest, PrefillMatchesTheReferenceWhereBlocksTakeSeveralItems) {
  for (int dim : {64, 80, 128}) {
    CheckPrefill({kBf16, 40, dim},
                 {{0, 200, 0, 0}, {0, 3, 70, 1}, {0, 130, 10, 2}, {0, 65, 0, 3}, {0, 193, 30, 4}});
  }
}

TEST_F(PagedAttentionGpuTest, PrefillMatchesTheReferenceOverALongPrompt) {
  for (int dim : {64, 80, 128}) CheckPrefill({kBf16, 1, dim}, {{0, 547, 1500, 0}});
  CheckPrefill({kBf16, 1, 80}, {{0, 640, 0, 0}});
}

TEST_F(PagedAttentionGpuTest, ChunkBordersAndNeighboursChangeNoBit) {
  for (const Shape shape :
       {Shape{kBf16, 2, 64}, Shape{kBf16, 2, 80}, Shape{kBf16, 2, 128}, Shape{kFp32, 1, 40}}) {
    const int tokens = 330;
    const Sequence s(shape, tokens, 21), other(shape, 90, 22);
    const auto whole =
        RunPrefill(Upload(shape, Cache(shape, 1, tokens)), s.qkv, {{0, tokens, 0, 0}});
    const size_t row_bytes = shape.width() * SizeOf(shape.type);
    for (int chunk : {1, 7, 64, 100, 200}) {
      const DeviceCache cache = Upload(shape, Cache(shape, 2, tokens, /*seed=*/chunk));
      for (int first = 0; first < tokens; first += chunk) {
        if (chunk == 1 && first % 37 != 0) {  // written, but not every row compared
          const auto row = s.Rows(first, 1);
          RunPrefill(cache, {row.begin(), row.end()}, {{0, 1, first, 0}});
          continue;
        }
        const int count = std::min(chunk, tokens - first);
        std::vector<float> qkv = other.qkv;  // a neighbour goes ahead in the same launch
        qkv.insert(qkv.end(), s.Rows(first, count).begin(), s.Rows(first, count).end());
        const auto out = RunPrefill(cache, qkv, {{0, 90, 0, 1}, {90, count, first, 0}});
        ASSERT_TRUE(
            std::equal(out.begin() + 90 * row_bytes, out.end(), whole.begin() + first * row_bytes))
            << shape.head_dim << ": chunks of " << chunk << " at " << first;
      }
    }
  }
}

TEST_F(PagedAttentionGpuTest, ANeighboursNaNStaysThere) {
  for (int dim : {64, 80, 128}) {
    const Shape shape{kBf16, 2, dim};
    const Sequence s(shape, 130, 23);
    const auto alone = RunPrefill(Upload(shape, Cache(shape, 1, 130)), s.qkv, {{0, 130, 0, 0}});
    std::vector<float> qkv = s.qkv;
    qkv.resize(2 * s.qkv.size(), NAN);
    const auto beside =
        RunPrefill(Upload(shape, Cache(shape, 2, 130)), qkv, {{0, 130, 0, 0}, {130, 130, 0, 1}});
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), beside.begin())) << dim;
  }
}

TEST_F(PagedAttentionGpuTest, LargeScoresNeitherOverflowNorVanish) {
  const Shape shape{kBf16, 2, 80};
  Sequence s(shape, 70, 30);
  for (float& value : s.qkv) value = Rounded(value * 40.0f, kBf16);
  const DeviceCache cache = Upload(shape, Cache(shape, 1, 70));
  const auto prompt = s.Rows(0, 69), last = s.Rows(69, 1);
  for (float value :
       Decode(RunPrefill(cache, {prompt.begin(), prompt.end()}, {{0, 69, 0, 0}}), kBf16)) {
    ASSERT_TRUE(std::isfinite(value));
  }
  const auto out =
      Decode(RunDecode(cache, {last.begin(), last.end()}, {69}, Plan(shape, 1)), kBf16);
  EXPECT_EQ(CountWrong(s, 69, out.data(), 5e-2), 0);  // scores of ten thousand
}

}  // namespace
}  // namespace hanlin
