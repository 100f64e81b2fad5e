// See session.h.
#include "worker/service/session.h"

#include "absl/time/clock.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "worker/service/wire.h"

namespace hanlin {

// What gRPC calls. Deletes itself when gRPC is done; the session may live on in the engine.
class Session::StreamReactor final : public Session::Reactor {
 public:
  explicit StreamReactor(std::shared_ptr<Session> session) : session_(std::move(session)) {}

  void Start() { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (!ok) {  // The gateway is gone or has said all it had to say; both end its requests.
      session_->Close(absl::OkStatus());
      return;
    }
    session_->OnRequest(&request_);
    StartRead(&request_);
  }
  void OnWriteDone(bool ok) override { session_->OnWritten(ok); }
  void OnCancel() override { session_->Close(Cancelled("the session was cancelled")); }
  void OnDone() override {
    session_->OnDone();
    delete this;
  }

 private:
  const std::shared_ptr<Session> session_;
  v1::SessionRequest request_;
};

Session::Reactor* Session::Start() {
  auto* reactor = new StreamReactor(shared_from_this());
  {
    absl::MutexLock lock(&mutex_);
    reactor_ = reactor;
  }
  reactor->Start();
  return reactor;
}

void Session::OnRequest(v1::SessionRequest* request) {
  if (request->has_abort()) {
    options_.engine->Abort(this, request->abort());
    return;
  }
  if (!request->has_start()) return;
  const uint64_t id = request->start().id();
  SubmitResult result;
  result.status = options_.check_fingerprint(request->start().tokenizer_fingerprint());
  if (result.status.ok()) {
    result = options_.engine->Submit(FromWire(std::move(*request->mutable_start()), absl::Now()),
                                     shared_from_this());
  }
  if (result.status.ok()) return;
  MessagePtr message = TakeMessage();
  ToWire(id, result, message->add_events());
  Push(std::move(message));
}

void Session::OnEvents(std::span<RequestEvent> events) {
  MessagePtr message = TakeMessage();
  for (const RequestEvent& event : events) ToWire(event, message->add_events());
  Push(std::move(message));
}

void Session::Tick(const EngineLoad& load, absl::Time now) {
  bool stuck = false;
  {
    absl::MutexLock lock(&mutex_);
    if (writing_ != nullptr) {
      stuck = now - write_began_ > options_.write_timeout;
      if (!stuck) return;
    }
  }
  if (stuck) {
    Close(DeadlineExceeded("the reader took no message for {:.0f} s",
                           absl::ToDoubleSeconds(options_.write_timeout)));
    return;
  }
  MessagePtr message = TakeMessage();
  ToWire(load, message->mutable_load());
  Push(std::move(message));
}

void Session::End(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (writing_ == nullptr) {
    Finish(status);
  } else {
    ending_ = status;
  }
}

void Session::Close(const absl::Status& status) {
  options_.engine->AbortAll(this);
  absl::MutexLock lock(&mutex_);
  outbox_.clear();
  Finish(status);
}

Session::MessagePtr Session::TakeMessage() {
  absl::MutexLock lock(&mutex_);
  if (spare_.empty()) return std::make_unique<v1::SessionResponse>();
  MessagePtr message = std::move(spare_.back());
  spare_.pop_back();
  message->Clear();
  return message;
}

void Session::Push(MessagePtr message) {
  absl::MutexLock lock(&mutex_);
  if (reactor_ == nullptr) return;
  queued_.fetch_add(1, std::memory_order_relaxed);
  outbox_.push_back(std::move(message));
  if (writing_ == nullptr) WriteNext();
}

void Session::WriteNext() {
  writing_ = std::move(outbox_.front());
  outbox_.pop_front();
  write_began_ = absl::Now();
  reactor_->StartWrite(writing_.get());
}

void Session::OnWritten(bool ok) {
  bool was_full = false;
  {
    absl::MutexLock lock(&mutex_);
    was_full = queued_.fetch_sub(1, std::memory_order_relaxed) == kMaxQueued;
    if (spare_.size() < kMaxQueued) spare_.push_back(std::move(writing_));
    writing_ = nullptr;
    if (reactor_ == nullptr || !ok) return;
    if (!outbox_.empty()) {
      WriteNext();
    } else if (ending_.has_value()) {
      Finish(*ending_);
    }
  }
  if (was_full) options_.engine->Wake();
}

void Session::Finish(const absl::Status& status) {
  if (reactor_ == nullptr) return;
  reactor_->Finish(ToGrpc(status));
  reactor_ = nullptr;
}

void Session::OnDone() {
  options_.engine->AbortAll(this);
  {
    absl::MutexLock lock(&mutex_);
    reactor_ = nullptr;
  }
  options_.on_done(this);
}

}  // namespace hanlin
