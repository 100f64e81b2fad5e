// See cpu_executor.h.
#include "worker/engine/cpu_executor.h"

#include <limits>

#include "common/obs/log.h"
#include "common/status/status.h"
#include "worker/engine/score.h"

namespace hanlin {

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
  return ScoreIds(
      ids, model_.limits(),
      [this](const StepBatch& batch, std::span<float> logits) {
        return group_.RunStep(batch, logits);
      },
      pool_);
}

}  // namespace hanlin
