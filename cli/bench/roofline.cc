// See roofline.h. The loops are compiled for the instruction set that the kernels use at run time.
#include "cli/bench/roofline.h"

#include <immintrin.h>

#include <atomic>
#include <chrono>

#include "kernels/base/isa.h"

namespace hanlin::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Independent sums, enough to fill the pipelines of two multiply-add units.
constexpr int kSums = 16;
constexpr int kIterations = 1 << 18;
constexpr int64_t kPrefetchLines = 64;

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

using Line = uint64_t __attribute__((vector_size(64)));

__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t Sum(const Line* lines,
                                                                          int64_t count) {
  Line sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    // As far ahead as the kernels do: without it one thread does not fill the memory's pipeline.
    for (int j = 0; j < 8; ++j) __builtin_prefetch(lines + i + j + kPrefetchLines);
    for (int j = 0; j < 8; ++j) sums[j] += lines[i + j];
  }
  for (; i < count; ++i) sums[0] += lines[i];
  uint64_t total = 0;
  for (const Line& sum : sums) {
    for (int j = 0; j < 8; ++j) total += sum[j];
  }
  return total;
}

// Each returns the operations done. The result goes to `sink`, so that the loop stays.
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) double DotBf16(float* sink) {
  __m512i ones = _mm512_set1_epi32(0x3f803f80);
  asm volatile("" : "+v"(ones));      // or the compiler turns products by one into sums
  const __m512bh x = (__m512bh)ones;  // NOLINT(google-readability-casting): vector types
  __m512 sums[kSums] = {};
  for (int i = 0; i < kIterations; ++i) {
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, x, x);
  }
  for (const __m512& sum : sums) *sink += _mm512_cvtss_f32(sum);
  return 64.0 * kSums * kIterations;
}

__attribute__((target("avx512f"))) double Fma512(float* sink) {
  __m512 x = _mm512_set1_ps(1.0f);
  asm volatile("" : "+v"(x));
  __m512 sums[kSums] = {};
  for (int i = 0; i < kIterations; ++i) {
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(x, x, sum);
  }
  for (const __m512& sum : sums) *sink += _mm512_cvtss_f32(sum);
  return 32.0 * kSums * kIterations;
}

__attribute__((target("avx2,fma"))) double Fma256(float* sink) {
  constexpr int kYmmSums = 12;  // of 16 registers
  __m256 x = _mm256_set1_ps(1.0f);
  asm volatile("" : "+x"(x));
  __m256 sums[kYmmSums] = {};
  for (int i = 0; i < kIterations; ++i) {
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(x, x, sum);
  }
  for (const __m256& sum : sums) *sink += _mm256_cvtss_f32(sum);
  return 16.0 * kYmmSums * kIterations;
}

}  // namespace

double MeasureReadRate(const std::byte* data, size_t bytes, ThreadPool& pool) {
  const int64_t lines = static_cast<int64_t>(bytes / sizeof(Line));
  std::atomic<uint64_t> sink = 0;
  const Clock::time_point start = Clock::now();
  pool.ParallelFor(lines, [&](int64_t begin, int64_t end, int) {
    sink += Sum(reinterpret_cast<const Line*>(data) + begin, end - begin);
  });
  return static_cast<double>(lines * sizeof(Line)) / Seconds(start);
}

std::optional<double> MeasurePeakFlops(ComputeType type, ThreadPool& pool) {
  double (*loop)(float*) = nullptr;
  switch (ActiveIsa()) {
    case Isa::kAmx:  // which serving does not use
    case Isa::kAvx512Bf16:
      loop = type == ComputeType::kBFloat16 ? DotBf16 : Fma512;
      break;
    case Isa::kAvx512:
      loop = Fma512;
      break;
    case Isa::kAvx2:
      loop = Fma256;
      break;
    case Isa::kPortable:
      return std::nullopt;
  }
  std::atomic<double> operations = 0;
  const Clock::time_point start = Clock::now();
  pool.RunOnAll([&](int) {
    volatile float sink;
    float result = 0;
    operations += loop(&result);
    sink = result;
    static_cast<void>(sink);
  });
  return operations / Seconds(start);
}

}  // namespace hanlin::cli
