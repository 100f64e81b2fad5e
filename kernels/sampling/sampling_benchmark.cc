// Time of one draw from a vocabulary of 25600 and 51200, for the usual combinations of filters.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/sampling/sampling.h"

namespace hanlin {
namespace {

void BM_Sample(benchmark::State& state, SamplingParams params, int penalized_ids,
               float spread = 2.5f) {
  const int64_t vocabulary = state.range(0);
  std::mt19937 engine(1);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> logits(vocabulary);
  for (float& logit : logits) logit = normal(engine);
  const std::vector<int32_t> ids(penalized_ids, 7);
  Sampler sampler;
  uint64_t position = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(sampler.Sample(logits, params, {.ids = ids, .position = position++}));
  }
}
BENCHMARK_CAPTURE(BM_Sample, greedy, {.temperature = 0}, 0)->Arg(25600)->Arg(51200);
BENCHMARK_CAPTURE(BM_Sample, temperature, {.temperature = 0.9f}, 0)->Arg(25600)->Arg(51200);
BENCHMARK_CAPTURE(BM_Sample, top_k_50, {.top_k = 50}, 0)->Arg(25600)->Arg(51200);
BENCHMARK_CAPTURE(BM_Sample, top_p_90, {.top_p = 0.9f}, 0)->Arg(25600)->Arg(51200);
BENCHMARK_CAPTURE(BM_Sample, top_p_90_flat, {.top_p = 0.9f}, 0, 0.5f)->Arg(25600)->Arg(51200);
BENCHMARK_CAPTURE(BM_Sample, top_p_90_peaked, {.top_p = 0.9f}, 0, 6.0f)->Arg(25600)->Arg(51200);
BENCHMARK_CAPTURE(BM_Sample, top_k_50_top_p_90, {.top_k = 50, .top_p = 0.9f}, 0)
    ->Arg(25600)
    ->Arg(51200);
BENCHMARK_CAPTURE(BM_Sample, min_p, {.min_p = 0.05f}, 0)->Arg(25600)->Arg(51200);
BENCHMARK_CAPTURE(BM_Sample, penalties, {.repetition_penalty = 1.1f}, 1000)->Arg(51200);

void BM_TopLogprobs(benchmark::State& state) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal(0.0f, 2.5f);
  std::vector<float> logits(state.range(0));
  for (float& logit : logits) logit = normal(engine);
  for (auto _ : state) benchmark::DoNotOptimize(TopLogprobs(logits, 20));
}
BENCHMARK(BM_TopLogprobs)->Arg(25600)->Arg(51200);

}  // namespace
}  // namespace hanlin
