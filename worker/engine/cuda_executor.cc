// See cuda_executor.h.
#include "worker/engine/cuda_executor.h"

#include <algorithm>
#include <numeric>

#include "common/status/status.h"
#include "kernels/sampling/cuda/sample.h"

namespace hanlin {
namespace {

// Rows of logits on the host at once while scoring.
constexpr int32_t kScoreChunk = 256;

}  // namespace

absl::Status CudaExecutor::Begin(const StepPlan& plan) {
  rows_.clear();
  std::vector<int32_t> logprobs;
  for (const SampleRow& sample : plan.samples) {
    CudaSampleRow& row = rows_.emplace_back();
    row.slot = MakeSampleSlot(sample.request->sampling);
    row.slot.logprobs = sample.request->logprobs;
    row.position = sample.position;
    row.logit_bias = sample.request->logit_bias;
    row.banned = sample.banned;
    row.ids = sample.ids;
    logprobs.push_back(sample.request->logprobs);
  }
  RETURN_IF_ERROR(model_.Begin(plan.batch(), rows_));
  logprobs_.push_back(std::move(logprobs));
  return absl::OkStatus();
}

absl::Status CudaExecutor::Finish(StepOutput* output) {
  ASSIGN_OR_RETURN(const CudaGptModel::Draws draws, model_.Finish());
  const std::vector<int32_t> asked = std::move(logprobs_.front());
  logprobs_.pop_front();
  output->tokens.resize(asked.size());
  for (size_t row = 0; row < asked.size(); ++row) {
    SampledToken& token = output->tokens[row];
    token.id = draws.ids[row];
    token.logprobs.top.clear();
    if (asked[row] < 0) continue;
    token.logprobs.token = {token.id, draws.logprobs[row]};
    const size_t first = row * kSampleMaxLogprobs;
    for (size_t i = first; i < first + static_cast<size_t>(asked[row]); ++i) {
      if (std::ssize(token.logprobs.top) == model_.config().vocab_size) break;
      token.logprobs.top.push_back({draws.top_ids[i], draws.top_logprobs[i]});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::optional<double>>> CudaExecutor::Score(
    std::span<const int32_t> ids) {
  const size_t vocab = model_.config().vocab_size;
  const auto total = static_cast<int32_t>(ids.size());
  const int32_t block_tokens = model_.limits().block_tokens;
  std::vector<int32_t> blocks((total + block_tokens - 1) / block_tokens);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<int32_t> rows(std::min(total, kScoreChunk));
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> logits(rows.size() * vocab);
  std::vector<std::optional<double>> logprobs(total);
  for (int32_t begin = 0; begin < total; begin += kScoreChunk) {
    const int32_t count = std::min(kScoreChunk, total - begin);
    const StepSequence sequence{.first_token = 0,
                                .num_tokens = count,
                                .context_tokens = begin,
                                .first_block = 0,
                                .num_blocks = (begin + count + block_tokens - 1) / block_tokens};
    const StepBatch batch{
        .tokens = ids.subspan(begin, count),
        .sequences = {&sequence, 1},
        .block_table = std::span<const int32_t>(blocks).first(sequence.num_blocks),
        .logit_rows = std::span<const int32_t>(rows).first(count)};
    RETURN_IF_ERROR(model_.Run(batch, std::span(logits).first(count * vocab)));
    for (int32_t row = 0; row < count && begin + row + 1 < total; ++row) {
      const auto scores = std::span<const float>(logits).subspan(row * vocab, vocab);
      const int32_t next = begin + row + 1;
      logprobs[next] = static_cast<double>(scores[ids[next]]) - LogSumExp(scores);
    }
  }
  return logprobs;
}

}  // namespace hanlin
