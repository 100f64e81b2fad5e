// See score.h.
#include "worker/engine/score.h"

#include <algorithm>
#include <numeric>

#include "common/status/status.h"
#include "kernels/sampling/sampling.h"

namespace hanlin {
namespace {

// Rows of logits held at once.
constexpr int32_t kScoreChunk = 128;

}  // namespace

absl::StatusOr<std::vector<std::optional<double>>> ScoreIds(
    std::span<const int32_t> ids, const StepLimits& limits,
    const std::function<absl::Status(const StepBatch&, std::span<float>)>& run, ThreadPool& pool) {
  const size_t vocab = limits.vocab_size;
  const int32_t total = static_cast<int32_t>(ids.size());
  std::vector<int32_t> blocks((total + limits.block_tokens - 1) / limits.block_tokens);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<std::optional<double>> logprobs(total);
  std::vector<int32_t> rows(std::min(total, kScoreChunk));
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> logits(rows.size() * vocab);
  for (int32_t begin = 0; begin < total; begin += kScoreChunk) {
    const int32_t count = std::min(kScoreChunk, total - begin);
    const StepSequence sequence{
        .first_token = 0,
        .num_tokens = count,
        .context_tokens = begin,
        .first_block = 0,
        .num_blocks = (begin + count + limits.block_tokens - 1) / limits.block_tokens};
    const StepBatch batch{
        .tokens = ids.subspan(begin, count),
        .sequences = {&sequence, 1},
        .block_table = std::span<const int32_t>(blocks).first(sequence.num_blocks),
        .logit_rows = std::span<const int32_t>(rows).first(count)};
    RETURN_IF_ERROR(run(batch, std::span(logits).first(count * vocab)));
    pool.ParallelFor(count, [&](int64_t first, int64_t last, int) {
      for (int64_t row = first; row < last && begin + row + 1 < total; ++row) {
        const auto scores = std::span<const float>(logits).subspan(row * vocab, vocab);
        const int64_t next = begin + row + 1;
        logprobs[next] = static_cast<double>(scores[ids[next]]) - LogSumExp(scores);
      }
    });
  }
  return logprobs;
}

}  // namespace hanlin
