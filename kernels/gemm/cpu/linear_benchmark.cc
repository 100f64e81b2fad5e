// Decode and prefill of the base shape (12 layers, width 768, vocabulary 25600): GB/s, also as a
// share of the rate at which the same threads sum the same packed buffer, and GFLOP/s.
#include <benchmark/benchmark.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/base/isa.h"
#include "kernels/gemm/cpu/linear.h"

namespace hanlin {
namespace {

constexpr int64_t kWidth = 768;
constexpr int64_t kLayers = 12;
constexpr int64_t kVocabulary = 25600;

// The matrices of the base model, filled with small numbers.
struct BaseModel {
  explicit BaseModel(ComputeType type) {
    std::vector<std::pair<int64_t, int64_t>> shapes;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      shapes.insert(
          shapes.end(),
          {{3 * kWidth, kWidth}, {kWidth, kWidth}, {4 * kWidth, kWidth}, {kWidth, 4 * kWidth}});
    }
    shapes.emplace_back(kVocabulary, kWidth);
    size_t bytes = 0;
    for (auto [n, k] : shapes) bytes += Arena::RoundUp(PackedMatrix::Bytes(type, n, k));
    arena = *Arena::Create(bytes);
    for (auto [n, k] : shapes) {
      matrices.push_back(*PackedMatrix::Create(type, n, k, arena));
      const std::vector<float> row(k, 0.01f);
      for (int64_t r = 0; r < n; ++r) matrices.back().PackRows(r, 1, row.data());
    }
  }
  Arena arena;
  std::vector<PackedMatrix> matrices;
};

double SumRate(const Arena& arena, ThreadPool& pool) {
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    pool.ParallelFor(static_cast<int64_t>(arena.used() / 64), [&](int64_t begin, int64_t end, int) {
      using Vector __attribute__((vector_size(64))) = uint64_t;
      Vector sums[8] = {};
      const auto* p = reinterpret_cast<const Vector*>(arena.data());
      int64_t i = begin;
      for (; i + 8 <= end; i += 8) {
        for (int j = 0; j < 8; ++j) __builtin_prefetch(p + i + j + 64);
        for (int j = 0; j < 8; ++j) sums[j] += p[i + j];
      }
      for (int j = 1; j < 8; ++j) sums[0] += sums[j];
      benchmark::DoNotOptimize(sums[0]);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, arena.used() / seconds.count());
  }
  return best;
}

void RunModel(const BaseModel& model, int64_t rows, ThreadPool& pool,
              const std::vector<std::byte>& x, std::vector<float>& y) {
  for (const PackedMatrix& w : model.matrices) {
    // The output layer of a prefill computes the last row only.
    const int64_t m = w.n == kVocabulary && rows > 64 ? 1 : rows;
    Linear(w, {.m = m, .x = x.data(), .x_stride = w.k, .y = y.data(), .y_stride = w.n}, pool);
  }
}

void BM_BaseModel(benchmark::State& state) {
  const auto type = static_cast<ComputeType>(state.range(0));
  const int64_t rows = state.range(1);
  ThreadPool pool(static_cast<int>(state.range(2)));
  static BaseModel models[] = {BaseModel(ComputeType::kFloat32), BaseModel(ComputeType::kBFloat16)};
  const BaseModel& model = models[state.range(0)];
  const std::vector<std::byte> x(rows * 4 * kWidth * SizeOf(type));
  std::vector<float> y(std::max(rows * 4 * kWidth, std::min<int64_t>(rows, 64) * kVocabulary));
  const double sum_rate = SumRate(model.arena, pool);
  for (auto _ : state) RunModel(model, rows, pool, x, y);
  double flop = 0;
  for (const PackedMatrix& w : model.matrices) {
    flop += 2.0 * w.n * w.k * (w.n == kVocabulary && rows > 64 ? 1 : rows);
  }
  const double iterations = static_cast<double>(state.iterations());
  state.SetLabel(std::string(IsaName(ActiveIsa())));
  state.counters["GB/s"] = {model.arena.used() * iterations / 1e9, benchmark::Counter::kIsRate};
  state.counters["of_sum_rate"] = {model.arena.used() * iterations / sum_rate,
                                   benchmark::Counter::kIsRate};
  state.counters["GFLOP/s"] = {flop * iterations / 1e9, benchmark::Counter::kIsRate};
  state.counters["tokens/s"] = {rows * iterations, benchmark::Counter::kIsRate};
}
BENCHMARK(BM_BaseModel)
    ->ArgNames({"bf16", "rows", "threads"})
    ->ArgsProduct({{0, 1}, {1, 2, 4, 8, 16, 64, 512}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace hanlin
