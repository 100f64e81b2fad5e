// Decode and prefill of the base shape with random weights: tokens a second, and for decode the
// rate at which the weights are read. Arguments: threads, then batch (decode) or prompt tokens
// (prefill). The shares of the measured roofline are printed by `hanlin bench`.
#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "common/status/status.h"
#include "model/config/config.h"
#include "model/forward/model.h"

namespace hanlin {
namespace {

constexpr int kContext = 256;
constexpr int kBlocksPerSequence = 2048 / 16;

// A step of `batch` sequences, `tokens` new ones behind `context` each; logits of the last token of
// each.
class Step {
 public:
  Step(int batch, int tokens, int context) : tokens_(batch * tokens, 1) {
    for (int i = 0; i < batch; ++i) {
      sequences_.push_back(
          {i * tokens, tokens, context, i * kBlocksPerSequence, kBlocksPerSequence});
      rows_.push_back((i + 1) * tokens - 1);
    }
    blocks_.resize(batch * kBlocksPerSequence);
    std::iota(blocks_.begin(), blocks_.end(), 0);
  }
  StepBatch batch() const { return {tokens_, sequences_, blocks_, rows_}; }

 private:
  std::vector<int32_t> tokens_;
  std::vector<StepSequence> sequences_;
  std::vector<int32_t> blocks_;
  std::vector<int32_t> rows_;
};

void RunSteps(benchmark::State& state, const Step& step, int batch) {
  const auto checkpoint = Checkpoint::Random(Preset("base").value());
  ThreadPool pool(static_cast<int>(state.range(0)));
  auto model = GptModel::Create({.checkpoint = checkpoint.get(),
                                 .compute_type = ComputeType::kBFloat16,
                                 .pool = &pool,
                                 .num_kv_blocks = batch * kBlocksPerSequence});
  std::vector<float> logits(static_cast<size_t>(batch) * checkpoint->config().vocab_size);
  for (auto _ : state) {
    if (const absl::Status status = (*model)->Run(step.batch(), logits); !status.ok()) {
      state.SkipWithError(Message(status).c_str());
    }
  }
  const double weights = static_cast<double>((*model)->weights().arena.used());
  state.SetItemsProcessed(state.iterations() * std::ssize(step.batch().tokens));
  state.counters["weight_bytes_per_second"] =
      benchmark::Counter(weights * state.iterations(), benchmark::Counter::kIsRate);
}

void BM_Decode(benchmark::State& state) {
  const int batch = static_cast<int>(state.range(1));
  RunSteps(state, Step(batch, 1, kContext), batch);
}
BENCHMARK(BM_Decode)->ArgsProduct({{1, 2}, {1, 8}})->UseRealTime()->Unit(benchmark::kMillisecond);

void BM_Prefill(benchmark::State& state) {
  RunSteps(state, Step(1, static_cast<int>(state.range(1)), 0), 1);
}
BENCHMARK(BM_Prefill)->ArgsProduct({{2}, {64, 512}})->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace hanlin
