// See load_client.h.
#include "cli/bench/load_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "cli/output/progress.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "hanlin/v1/text_generation.grpc.pb.h"

namespace hanlin::cli {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

constexpr absl::Duration kInfoTimeout = absl::Seconds(30);

// One request in flight. Its operations follow one another: start, reads, finish.
struct Call {
  enum class Step { kStart, kRead, kFinish };

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientAsyncReader<v1::StreamGenerateResponse>> reader;
  v1::StreamGenerateResponse piece;
  grpc::Status status;
  Step step = Step::kStart;
  Clock::time_point sent;
  Clock::time_point first;
  Clock::time_point last;
  int64_t tokens = 0;
  int64_t worker_first_token_us = -1;
  bool ramp_up = false;  // one of the first, which start together
  RequestTrace trace;
};

class LoadRun {
 public:
  LoadRun(const LoadOptions& options, const std::shared_ptr<grpc::Channel>& channel)
      : options_(options),
        stub_(v1::TextGenerationService::NewStub(channel)),
        ramp_up_left_(options.streams) {}

  absl::StatusOr<LoadResult> Run() {
    Progress progress("load");
    start_ = Clock::now();
    while (!Done()) {
      StartDue();
      void* tag = nullptr;
      bool ok = false;
      const auto next = queue_.AsyncNext(&tag, &ok, NextStart());
      if (next == grpc::CompletionQueue::GOT_EVENT) Advance(static_cast<Call*>(tag), ok);
      progress.Update(Fraction());
    }
    result_.elapsed = Seconds(Clock::now() - start_);
    queue_.Shutdown();
    if (result_.whole.empty() || (Steady() && result_.steady_end <= result_.steady_begin))
      return first_error_;
    return std::move(result_);
  }

 private:
  // When request `started_` is due.
  Clock::time_point Due() const {
    if (options_.rate <= 0) return start_;
    return start_ + std::chrono::duration_cast<Clock::duration>(
                        std::chrono::duration<double>(started_ / options_.rate));
  }

  bool Steady() const { return options_.steady > absl::ZeroDuration(); }
  bool MayStart() const { return !StartedAll() && started_ - finished_ < options_.streams; }
  bool StartedAll() const { return Steady() ? closed_ : started_ >= options_.total; }
  bool Done() const { return StartedAll() && finished_ == started_; }

  double Fraction() const {
    if (!Steady()) return static_cast<double>(finished_) / options_.total;
    if (ramp_up_left_ > 0) return 0;
    const double time = (Now() - result_.steady_begin) / absl::ToDoubleSeconds(options_.steady);
    const double requests = static_cast<double>(finished_ - begin_finished_) / options_.total;
    return std::clamp(std::min(time, requests), 0.0, 1.0);
  }

  double Now() const { return Seconds(Clock::now() - start_); }

  std::chrono::system_clock::time_point NextStart() const {
    const auto now = std::chrono::system_clock::now();
    if (!MayStart()) return now + std::chrono::seconds(1);
    return now +
           std::chrono::duration_cast<std::chrono::system_clock::duration>(Due() - Clock::now());
  }

  void StartDue() {
    while (MayStart() && Due() <= Clock::now()) {
      auto* call = new Call;  // owned by the queue until its finish
      call->context.set_deadline(absl::ToChronoTime(absl::Now() + options_.request_timeout));
      call->sent = Clock::now();
      const v1::StreamGenerateRequest request =
          options_.make_request ? options_.make_request(started_)
                                : options_.requests[started_ % options_.requests.size()];
      call->ramp_up = started_ < options_.streams;
      call->trace.prompt_tokens = request.prompt().token_ids().ids_size();
      call->trace.sent = Seconds(call->sent - start_);
      call->reader = stub_->AsyncStreamGenerate(&call->context, request, &queue_, call);
      ++started_;
    }
  }

  void Advance(Call* call, bool ok) {
    if (call->step == Call::Step::kFinish) return End(call);
    if (call->step == Call::Step::kRead && ok) Count(call);
    if (ok) {
      call->step = Call::Step::kRead;
      call->reader->Read(&call->piece, call);
    } else {
      call->step = Call::Step::kFinish;
      call->reader->Finish(&call->status, call);
    }
  }

  void Count(Call* call) {
    const Clock::time_point now = Clock::now();
    ++result_.messages;
    if (call->piece.ids_size() > 0) {
      if (call->tokens == 0) {
        call->first = now;
      } else {
        result_.gap.push_back(Seconds(now - call->last));
      }
      call->tokens += call->piece.ids_size();
      call->last = now;
      if (Steady()) call->trace.pieces.push_back({Seconds(now - start_), call->piece.ids_size()});
    }
    if (call->piece.has_timings())
      call->worker_first_token_us = call->piece.timings().time_to_first_token_us();
  }

  void End(Call* finished) {
    const std::unique_ptr<Call> call(finished);
    ++finished_;
    result_.tokens += call->tokens;
    if (Steady()) Trace(call.get());
    if (!call->status.ok()) {
      const absl::Status status = FromGrpc(call->status);
      if (first_error_.ok()) first_error_ = status;
      ++result_.errors[absl::StatusCodeToString(status.code())];
      return;
    }
    result_.whole.push_back(Seconds(Clock::now() - call->sent));
    if (call->tokens == 0) return;
    const double first_token = Seconds(call->first - call->sent);
    result_.first_token.push_back(first_token);
    if (call->worker_first_token_us >= 0) {
      result_.added_first_token.push_back(first_token - call->worker_first_token_us * 1e-6);
    }
    if (call->tokens > 1)
      result_.per_token.push_back(Seconds(call->last - call->first) / (call->tokens - 1));
  }

  void Trace(Call* call) {
    call->trace.ok = call->status.ok();
    call->trace.end = Now();
    if (!call->trace.ok) ++failed_;
    if (call->ramp_up && --ramp_up_left_ == 0) {
      result_.steady_begin = call->trace.end;
      begin_finished_ = finished_;
    }
    const bool enough =
        ramp_up_left_ == 0 && finished_ - begin_finished_ >= options_.total &&
        call->trace.end - result_.steady_begin >= absl::ToDoubleSeconds(options_.steady);
    if (!closed_ && (enough || failed_ > options_.streams)) {
      closed_ = true;
      if (ramp_up_left_ == 0) result_.steady_end = call->trace.end;
    }
    result_.traces.push_back(std::move(call->trace));
  }

  const LoadOptions& options_;
  const std::unique_ptr<v1::TextGenerationService::Stub> stub_;
  grpc::CompletionQueue queue_;
  Clock::time_point start_;
  int started_ = 0;
  int finished_ = 0;
  int failed_ = 0;
  int ramp_up_left_;
  int begin_finished_ = 0;  // when the steady state began
  bool closed_ = false;     // … and ended
  absl::Status first_error_;
  LoadResult result_;
};

}  // namespace

absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options) {
  ASSIGN_OR_RETURN(const auto channel,
                   OpenChannel(options.target, {.ca_certificate = options.ca_certificate}));
  return LoadRun(options, channel).Run();
}

absl::StatusOr<v1::GetModelInfoResponse> FetchModelInfo(const std::string& target,
                                                        const std::string& ca_certificate) {
  ASSIGN_OR_RETURN(const auto channel, OpenChannel(target, {.ca_certificate = ca_certificate}));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kInfoTimeout));
  v1::GetModelInfoResponse info;
  RETURN_IF_ERROR(FromGrpc(v1::TextGenerationService::NewStub(channel)->GetModelInfo(
      &context, v1::GetModelInfoRequest(), &info)));
  return info;
}

}  // namespace hanlin::cli
