// See call.h.
#include "gateway/call.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/random/random.h"
#include "common/rpc/status.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

// A request that kills the groups it meets must not meet them all.
constexpr int kMaxAttempts = 3;
// How long a request that lost its group before its first token waits for one to return.
constexpr absl::Duration kRetryWindow = absl::Seconds(5);
constexpr absl::Duration kTokenizeTimeout = absl::Seconds(10);

uint64_t NextWorkerRequestId() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

uint64_t RandomSeed() {
  thread_local absl::BitGen generator;
  return absl::Uniform<uint64_t>(generator);
}

}  // namespace

GenerationCall::GenerationCall(const CallEnvironment& environment, Options options,
                               std::shared_ptr<CallOutput> output)
    : environment_(environment), options_(std::move(options)), output_(std::move(output)) {
  environment_.metrics->queued.Increment();
}

void GenerationCall::Start() {
  std::string fingerprint;
  {
    Completion completion;
    absl::MutexLock lock(&mutex_);
    if (output_ == nullptr) return;
    tokenizer_ = environment_.tokenizer->identity();
    if (tokenizer_ == nullptr || environment_.groups->ready_groups() == 0) {
      absl::Status serving = environment_.groups->Serving();
      if (!serving.ok()) return Finish(serving, &completion);
    }
    if (tokenizer_ == nullptr) {
      return Finish(Unavailable("the tokenizer has not answered yet"), &completion);
    }
    fingerprint = tokenizer_->fingerprint;
  }
  if (options_.prompt->has_token_ids()) {
    const auto& ids = options_.prompt->token_ids().ids();
    return OnIds(std::vector<int32_t>(ids.begin(), ids.end()));
  }
  environment_.tokenizer->Encode(
      options_.prompt->text(), options_.request_id, std::move(fingerprint),
      std::min(options_.deadline, absl::Now() + kTokenizeTimeout),
      [self = shared_from_this()](auto ids) { self->OnIds(std::move(ids)); });
}

void GenerationCall::OnIds(absl::StatusOr<std::vector<int32_t>> ids) {
  Completion completion;
  absl::MutexLock lock(&mutex_);
  if (output_ == nullptr) return;
  if (absl::IsDeadlineExceeded(ids.status()) && absl::Now() < options_.deadline) {
    // Not the client's deadline but kTokenizeTimeout.
    return Finish(Unavailable("the tokenizer did not answer in time"), &completion);
  }
  if (!ids.ok()) return Finish(ids.status(), &completion);
  if (absl::Status prepared = Prepare(*std::move(ids)); !prepared.ok()) {
    return Finish(prepared, &completion);
  }
  Dispatch(absl::OkStatus(), &completion);
}

absl::Status GenerationCall::Prepare(std::vector<int32_t> ids) {
  ASSIGN_OR_RETURN(prompt_ticket_, environment_.admission->AdmitPromptTokens(ids.size()));
  environment_.metrics->prompt_tokens.Increment(static_cast<double>(ids.size()));
  const v1::GenerationParameters& parameters = *options_.parameters;
  request_.set_request_id(options_.request_id);
  request_.set_tokenizer_fingerprint(tokenizer_->fingerprint);
  request_.mutable_ids()->Add(ids.begin(), ids.end());
  request_.set_num_prompt_tokens(static_cast<int32_t>(ids.size()));
  *request_.mutable_sampling() = parameters.sampling();
  if (!parameters.sampling().has_seed()) request_.mutable_sampling()->set_seed(RandomSeed());
  *request_.mutable_stopping() = parameters.stopping();
  request_.mutable_stopping()->clear_stop_strings();
  if (parameters.has_logprobs()) request_.set_logprobs(parameters.logprobs());

  std::string lead_text;
  if (parameters.echo()) {
    lead_text = options_.prompt->has_text() ? options_.prompt->text()
                                            : StreamDecoder::Decode(*tokenizer_->spec, ids);
  }
  ASSIGN_OR_RETURN(relay_, ChoiceRelay::Create({.spec = tokenizer_->spec,
                                                .prompt_ids = std::move(ids),
                                                .stopping = &parameters.stopping(),
                                                .lead_text = std::move(lead_text),
                                                .seed = request_.sampling().seed(),
                                                .start = absl::Now()}));
  return absl::OkStatus();
}

void GenerationCall::Dispatch(const absl::Status& otherwise, Completion* completion) {
  const absl::Time now = absl::Now();
  if (options_.deadline != absl::InfiniteFuture()) {
    const absl::Duration left = options_.deadline - now;
    if (left <= absl::ZeroDuration()) {
      return Finish(DeadlineExceeded("the deadline passed before a worker group could start"),
                    completion);
    }
    request_.set_deadline_us(absl::ToInt64Microseconds(left));
  }
  while (auto group = environment_.groups->Pick(full_groups_)) {
    request_.set_id(NextWorkerRequestId());
    if (group->Start(request_, shared_from_this())) {
      group_ = std::move(group);
      if (attempts_++ == 0) {
        environment_.metrics->queue_seconds.Observe(absl::ToDoubleSeconds(now - options_.arrival));
      } else {
        environment_.metrics->retries.Increment();
      }
      return;
    }
    full_groups_.push_back(std::move(group));  // Left rotation since it was picked.
  }
  if (!otherwise.ok()) return Finish(otherwise, completion);
  absl::Status serving = environment_.groups->Serving();
  Finish(serving.ok() ? Unavailable("no worker group is ready") : serving, completion);
}

void GenerationCall::OnEvent(const v1::RequestEvent& event, absl::Time now) {
  Completion completion;
  absl::MutexLock lock(&mutex_);
  if (output_ == nullptr || event.id() != request_.id()) return;  // Of an earlier attempt.
  if (event.error_code() != 0) return OnError(event, &completion);
  if (event.ids().empty() && event.finish_reason() == v1::FINISH_REASON_UNSPECIFIED) return;
  auto outcome = ChoiceRelay::Outcome::kRunning;
  output_->Emit([&](v1::StreamGenerateResponse* piece) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    outcome = relay_->Append(event, now, piece);
    return outcome != ChoiceRelay::Outcome::kRunning;
  });
  environment_.metrics->generated_tokens.Increment(event.ids_size());
  if (!has_token_) OnFirstToken(now);
  if (outcome == ChoiceRelay::Outcome::kRunning) return;
  if (outcome == ChoiceRelay::Outcome::kStopped) group_->Abort(request_.id());
  Finish(absl::OkStatus(), &completion);
}

void GenerationCall::OnError(const v1::RequestEvent& event, Completion* completion) {
  absl::Status status(static_cast<absl::StatusCode>(event.error_code()), event.error_message());
  if (event.retry_after_ms() > 0) {
    status = WithRetryAfter(status, absl::Milliseconds(event.retry_after_ms()));
  }
  const bool elsewhere = absl::IsResourceExhausted(status) || absl::IsUnavailable(status);
  if (!elsewhere || relay_->started()) return Finish(status, completion);
  full_groups_.push_back(std::move(group_));
  Dispatch(status, completion);
}

void GenerationCall::OnLost(uint64_t id, const absl::Status& why) {
  Completion completion;
  absl::MutexLock lock(&mutex_);
  if (output_ == nullptr || id != request_.id()) return;
  group_ = nullptr;
  if (relay_->started() || attempts_ >= kMaxAttempts) return Finish(why, &completion);
  full_groups_.clear();
  environment_.groups->WhenReady(std::min(options_.deadline, absl::Now() + kRetryWindow),
                                 [self = shared_from_this(), why] { self->Retry(why); });
}

void GenerationCall::Retry(const absl::Status& why) {
  Completion completion;
  absl::MutexLock lock(&mutex_);
  if (output_ != nullptr) Dispatch(why, &completion);
}

void GenerationCall::OnFirstToken(absl::Time now) {
  has_token_ = true;
  prompt_ticket_.Release();
  environment_.metrics->queued.Decrement();
  environment_.metrics->running.Increment();
  environment_.metrics->time_to_first_token_seconds.Observe(
      absl::ToDoubleSeconds(now - options_.arrival));
}

void GenerationCall::Cancel(const absl::Status& why) {
  Completion completion;
  absl::MutexLock lock(&mutex_);
  if (output_ == nullptr) return;
  if (group_ != nullptr) group_->Abort(request_.id());
  environment_.metrics->cancellations.Increment();
  Finish(why, &completion);
}

void GenerationCall::Finish(const absl::Status& status, Completion* completion) {
  const absl::Time now = absl::Now();
  GatewayMetrics& metrics = *environment_.metrics;
  (has_token_ ? metrics.running : metrics.queued).Decrement();
  metrics.request_seconds.Observe(absl::ToDoubleSeconds(now - options_.arrival));
  if (has_token_ && relay_->completion_tokens() > 1) {
    metrics.time_per_output_token_seconds.Observe(
        absl::ToDoubleSeconds(now - relay_->first_token_time()) /
        (relay_->completion_tokens() - 1));
  }
  prompt_ticket_.Release();
  group_ = nullptr;
  full_groups_.clear();
  completion->status = status;
  completion->output = std::move(output_);
  output_ = nullptr;
}

GenerationCall::Figures GenerationCall::figures() const {
  absl::MutexLock lock(&mutex_);
  if (!relay_.has_value()) return {};
  return {relay_->prompt_tokens(), relay_->completion_tokens(), relay_->first_token_time()};
}

}  // namespace hanlin
