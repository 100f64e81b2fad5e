// See cpu_executor.h.
#include "worker/engine/cpu_executor.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "common/obs/log.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

// Rows of logits held at once while scoring.
constexpr int32_t kScoreChunk = 128;

}  // namespace

CpuExecutor::CpuExecutor(GptModel* model, Communicator* communicator, ThreadPool* pool)
    : model_(*model), group_(model, communicator), pool_(*pool), workers_(pool->num_threads()) {}

absl::Status CpuExecutor::Execute(const StepPlan& plan, StepOutput* output) {
  const size_t vocab = model_.config().vocab_size;
  const size_t rows = plan.samples.size();
  if (logits_.size() < rows * vocab) logits_.resize(rows * vocab);
  RETURN_IF_ERROR(group_.RunStep(plan.batch(), std::span(logits_).first(rows * vocab)));
  output->tokens.resize(rows);
  pool_.ParallelFor(static_cast<int64_t>(rows), [&](int64_t begin, int64_t end, int thread) {
    for (int64_t row = begin; row < end; ++row) {
      SampleOne(std::span<const float>(logits_).subspan(row * vocab, vocab), plan.samples[row],
                &workers_[thread], &output->tokens[row]);
    }
  });
  return absl::OkStatus();
}

void CpuExecutor::SampleOne(std::span<const float> logits, const SampleRow& row, Worker* worker,
                            SampledToken* token) const {
  const ResolvedRequest& request = *row.request;
  SamplingContext context{.logit_bias = request.logit_bias,
                          .ids = row.ids,
                          .position = static_cast<uint64_t>(row.position)};
  if (!row.banned.empty()) {
    worker->bias = request.logit_bias;
    for (const int32_t id : row.banned) {
      worker->bias.push_back({id, -std::numeric_limits<float>::infinity()});
    }
    context.logit_bias = worker->bias;
  }
  token->id = worker->sampler.Sample(logits, request.sampling, context);
  token->logprobs.top.clear();
  if (request.logprobs < 0) return;
  token->logprobs.token = {token->id, Logprob(logits, token->id)};
  if (request.logprobs > 0) token->logprobs.top = TopLogprobs(logits, request.logprobs);
}

void CpuExecutor::Shutdown() {
  if (const absl::Status status = group_.Shutdown(); !status.ok()) {
    Log(LogLevel::kWarning, "the group did not end well", {{"error", Message(status)}});
  }
}

absl::StatusOr<std::vector<std::optional<double>>> CpuExecutor::Score(
    std::span<const int32_t> ids) {
  const int32_t vocab = model_.config().vocab_size;
  const int32_t total = static_cast<int32_t>(ids.size());
  const int32_t block_tokens = GptModel::block_tokens();
  std::vector<int32_t> blocks((total + block_tokens - 1) / block_tokens);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<std::optional<double>> logprobs(total);
  std::vector<int32_t> rows(std::min(total, kScoreChunk));
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<double> chunk(rows.size());
  logits_.resize(rows.size() * vocab);
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
    RETURN_IF_ERROR(
        group_.RunStep(batch, std::span(logits_).first(static_cast<size_t>(count) * vocab)));
    pool_.ParallelFor(count, [&](int64_t first, int64_t last, int) {
      for (int64_t row = first; row < last && begin + row + 1 < total; ++row) {
        const auto logits = std::span<const float>(logits_).subspan(row * vocab, vocab);
        chunk[row] = static_cast<double>(logits[ids[begin + row + 1]]) - LogSumExp(logits);
      }
    });
    for (int32_t row = 0; row < count && begin + row + 1 < total; ++row) {
      logprobs[begin + row + 1] = chunk[row];
    }
  }
  return logprobs;
}

}  // namespace hanlin
