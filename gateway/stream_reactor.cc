// See stream_reactor.h.
#include "gateway/stream_reactor.h"

#include "common/rpc/status.h"

namespace hanlin {
namespace {

grpc::ByteBuffer Serialize(const v1::StreamGenerateResponse& message) {
  grpc::Slice slice(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace

StreamReactor::StreamReactor(const CallEnvironment& environment,
                             grpc::CallbackServerContext* context)
    : environment_(environment), context_("StreamGenerate", environment.metrics, context) {}

void StreamReactor::Start(const absl::Status& refusal) {
  self_ = shared_from_this();
  if (!refusal.ok()) return Done(refusal);
  auto ticket = environment_.admission->AdmitRequests(1);
  if (!ticket.ok()) return Done(ticket.status());
  ticket_ = *std::move(ticket);
  call_ = std::make_shared<GenerationCall>(environment_,
                                           GenerationCall::Options{
                                               .request_id = context_.request_id(),
                                               .prompt = &request_.prompt(),
                                               .parameters = &request_.parameters(),
                                               .arrival = context_.arrival(),
                                               .deadline = context_.deadline(),
                                           },
                                           shared_from_this());
  call_->Start();
}

void StreamReactor::Emit(absl::FunctionRef<bool(v1::StreamGenerateResponse*)> fill) {
  Step step = Step::kNone;
  {
    absl::MutexLock lock(&mutex_);
    const bool last = fill(queue_.Tail());
    if (!last) step = Next();
  }
  Do(step);
}

void StreamReactor::Done(const absl::Status& status) {
  Step step;
  {
    absl::MutexLock lock(&mutex_);
    status_ = status;
    step = Next();
  }
  Do(step);
}

StreamReactor::Step StreamReactor::Next() {
  if (writing_) return Step::kNone;
  // A call that was cancelled takes nothing more.
  const bool drop =
      status_.has_value() && (absl::IsCancelled(*status_) || absl::IsDeadlineExceeded(*status_));
  if (queue_.empty() || drop) {
    if (!status_.has_value()) return Step::kNone;
    writing_ = true;
    final_status_ = *status_;
    return Step::kFinish;
  }
  writing_ = true;
  buffer_ = Serialize(queue_.Front());
  queue_.PopFront();
  write_options_ = grpc::WriteOptions();
  if (!queue_.empty()) write_options_.set_buffer_hint();
  if (!queue_.empty() || !status_.has_value()) return Step::kWrite;
  final_status_ = *status_;
  return Step::kWriteAndFinish;
}

void StreamReactor::Do(Step step) {
  switch (step) {
    case Step::kNone:
      return;
    case Step::kWrite:
      return StartWrite(&buffer_, write_options_);
    case Step::kWriteAndFinish:
      return StartWriteAndFinish(&buffer_, write_options_, ToGrpc(final_status_));
    case Step::kFinish:
      return Finish(ToGrpc(final_status_));
  }
}

void StreamReactor::OnWriteDone(bool ok) {
  // A write fails only when the call is cancelled or its connection is gone.
  if (!ok) call_->Cancel(context_.CancelReason());
  Step step;
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    step = Next();
  }
  Do(step);
}

void StreamReactor::OnCancel() {
  if (call_ != nullptr) call_->Cancel(context_.CancelReason());
}

void StreamReactor::OnDone() {
  context_.Finish(final_status_, call_ == nullptr ? GenerationCall::Figures{} : call_->figures());
  ticket_.Release();
  self_.reset();
}

}  // namespace hanlin
