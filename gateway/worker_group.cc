// See worker_group.h.
#include "gateway/worker_group.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "common/obs/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "hanlin/v1/worker.grpc.pb.h"

namespace hanlin {

struct WorkerGroup::Stub {
  std::unique_ptr<v1::WorkerService::Stub> rpc;
};

struct WorkerGroup::InfoCall {
  grpc::ClientContext context;
  v1::GetWorkerInfoRequest request;
  v1::GetWorkerInfoResponse response;
};

// The stream. It has no deadline: the group's silence_timeout takes that place. A hold keeps it
// alive for writes that start outside its own callbacks, until its reads have ended.
class WorkerGroup::Session final
    : public grpc::ClientBidiReactor<v1::SessionRequest, v1::SessionResponse> {
 public:
  explicit Session(std::shared_ptr<WorkerGroup> group) : group_(std::move(group)) {}

  void Open(v1::WorkerService::Stub* stub) {
    stub->async()->Session(&context_, this);
    AddHold();
    StartRead(&response_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      group_->OnReadsEnded(this);
      RemoveHold();
      return;
    }
    group_->OnMessage(this, response_);
    StartRead(&response_);
  }
  void OnWriteDone(bool ok) override { group_->OnWritten(this, ok); }
  void OnDone(const grpc::Status& status) override {
    group_->OnSessionDone(FromGrpc(status));
    delete this;
  }

  // Scratch of OnMessage, kept for its capacity: index of the event and where it goes.
  std::vector<std::pair<int, std::shared_ptr<RequestSink>>> deliveries;

 private:
  std::shared_ptr<WorkerGroup> group_;
  grpc::ClientContext context_;
  v1::SessionResponse response_;
};

absl::StatusOr<std::shared_ptr<WorkerGroup>> WorkerGroup::Create(Options options) {
  ASSIGN_OR_RETURN(const auto channel, OpenChannel(options.address));
  auto group = std::shared_ptr<WorkerGroup>(new WorkerGroup(std::move(options)));
  group->stub_->rpc = v1::WorkerService::NewStub(channel);
  return group;
}

WorkerGroup::WorkerGroup(Options options)
    : options_(std::move(options)), stub_(std::make_unique<Stub>()), health_(options_.health) {}

WorkerGroup::~WorkerGroup() = default;

void WorkerGroup::Tick(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return;
  health_.Tick(now);
  if (health_.ready()) {  // The tokenizer may have become another one.
    if (const absl::Status fit = options_.check(*info_); absl::IsFailedPrecondition(fit)) {
      health_.OnInfoRefused(fit, now);
    }
  }
  const bool idle = retired_ && requests_.empty();
  if (session_ != nullptr && (idle || health_.state() == GroupHealth::State::kStalled ||
                              health_.state() == GroupHealth::State::kRefused)) {
    session_->Cancel();
  }
  if (session_ == nullptr && info_call_ == nullptr && !retired_ && health_.ShouldConnect(now)) {
    AskInfo();
  }
  LogState();
}

void WorkerGroup::Retire() {
  absl::MutexLock lock(&mutex_);
  retired_ = true;
}

void WorkerGroup::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  if (session_ != nullptr) session_->Cancel();
  if (info_call_ != nullptr) info_call_->context.TryCancel();
}

bool WorkerGroup::Closed() const {
  absl::MutexLock lock(&mutex_);
  return (closed_ || retired_) && session_ == nullptr && info_call_ == nullptr;
}

bool WorkerGroup::Start(v1::WorkerRequest request, std::shared_ptr<RequestSink> sink) {
  absl::MutexLock lock(&mutex_);
  if (!health_.ready() || !writable_ || retired_ || closed_) return false;
  const int64_t prompt_tokens = request.num_prompt_tokens();
  requests_[request.id()] = {std::move(sink), prompt_tokens};
  own_.requests += 1;
  own_.prompt_tokens += prompt_tokens;
  *outbox_.emplace_back().mutable_start() = std::move(request);
  WriteNext();
  return true;
}

void WorkerGroup::Abort(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  const auto request = requests_.find(id);
  if (request == requests_.end()) return;
  Forget(request);
  if (!writable_) return;
  outbox_.emplace_back().set_abort(id);
  WriteNext();
}

bool WorkerGroup::ready() const {
  absl::MutexLock lock(&mutex_);
  return health_.ready() && writable_ && !retired_ && !closed_;
}

GroupLoad WorkerGroup::load() const {
  absl::MutexLock lock(&mutex_);
  return {own_.requests + others_.requests, own_.prompt_tokens + others_.prompt_tokens};
}

std::optional<v1::GetWorkerInfoResponse> WorkerGroup::info() const {
  absl::MutexLock lock(&mutex_);
  return info_;
}

std::string WorkerGroup::Describe() const {
  absl::MutexLock lock(&mutex_);
  return fmt::format("worker group {} is {}{}{}", options_.address, StateName(health_.state()),
                     health_.reason().empty() ? "" : ": ", health_.reason());
}

void WorkerGroup::AskInfo() {
  auto call = std::make_shared<InfoCall>();
  info_call_ = call;
  call->context.set_deadline(absl::ToChronoTime(absl::Now() + options_.info_timeout));
  stub_->rpc->async()->GetWorkerInfo(&call->context, &call->request, &call->response,
                                     [self = shared_from_this(), call](const grpc::Status& status) {
                                       self->OnInfo(FromGrpc(status), call->response);
                                     });
}

void WorkerGroup::OnInfo(const absl::Status& status, const v1::GetWorkerInfoResponse& info) {
  const absl::Status fit =
      status.ok() ? options_.check(info) : Annotate(status, "it is not reachable");
  absl::MutexLock lock(&mutex_);
  info_call_ = nullptr;
  if (closed_ || retired_) return;
  const absl::Time now = absl::Now();
  if (status.ok()) info_ = info;
  if (absl::IsFailedPrecondition(fit)) {
    health_.OnInfoRefused(fit, now);
  } else if (!fit.ok()) {
    health_.OnInfoFailed(fit, now);
  } else {
    health_.OnSessionOpening(now);
    session_ = new Session(shared_from_this());
    writable_ = true;
    session_->Open(stub_->rpc.get());
  }
  LogState();
}

void WorkerGroup::OnMessage(Session* session, const v1::SessionResponse& message) {
  const absl::Time now = absl::Now();
  session->deliveries.clear();
  {
    absl::MutexLock lock(&mutex_);
    health_.OnMessage(message.has_load() ? &message.load() : nullptr, now);
    for (int i = 0; i < message.events_size(); ++i) {
      const v1::RequestEvent& event = message.events(i);
      const auto request = requests_.find(event.id());
      if (request == requests_.end()) continue;  // Aborted meanwhile.
      session->deliveries.emplace_back(i, request->second.sink);
      if (event.ids_size() > 0) {
        own_.prompt_tokens -= std::exchange(request->second.prompt_tokens, 0);
      }
      const bool last = event.finish_reason() != v1::FINISH_REASON_UNSPECIFIED;
      if (last || event.error_code() != 0) Forget(request);
    }
    if (message.has_load()) {
      const v1::WorkerLoad& load = message.load();
      others_ = OthersLoad(
          {load.queued_requests() + load.running_requests(), load.queued_prompt_tokens()}, own_);
    }
    LogState();
  }
  for (const auto& [index, sink] : session->deliveries) sink->OnEvent(message.events(index), now);
  session->deliveries.clear();
}

void WorkerGroup::OnReadsEnded(Session* session) {
  absl::MutexLock lock(&mutex_);
  if (session == session_) writable_ = false;
}

void WorkerGroup::OnWritten(Session* session, bool ok) {
  absl::MutexLock lock(&mutex_);
  writing_ = false;
  outbox_.pop_front();
  if (!ok) {
    session->Cancel();  // The stream is broken; its end reports why.
    writable_ = false;
  }
  WriteNext();
}

void WorkerGroup::OnSessionDone(const absl::Status& status) {
  Requests lost;
  {
    absl::MutexLock lock(&mutex_);
    session_ = nullptr;
    writable_ = false;
    writing_ = false;
    outbox_.clear();
    lost.swap(requests_);
    own_ = {};
    others_ = {};
    health_.OnSessionEnded(status, absl::Now());
    LogState();
  }
  const absl::Status why =
      Unavailable("the worker group that served this request ({}) is gone: {}", options_.address,
                  status.ok() ? "it ended its session" : Message(status));
  for (const auto& [id, request] : lost) request.sink->OnLost(id, why);
}

void WorkerGroup::WriteNext() {
  if (writing_ || !writable_ || outbox_.empty()) return;
  writing_ = true;
  grpc::WriteOptions options;
  if (outbox_.size() > 1) options.set_buffer_hint();
  session_->StartWrite(&outbox_.front(), options);
}

void WorkerGroup::Forget(Requests::iterator request) {
  own_.requests -= 1;
  own_.prompt_tokens -= request->second.prompt_tokens;
  requests_.erase(request);
}

// One line a change. Connecting again and again for the same reason is one state.
void WorkerGroup::LogState() {
  if (closed_ || health_.state() == GroupHealth::State::kOpening) return;
  if (health_.state() == logged_state_ && health_.reason() == logged_reason_) return;
  logged_state_ = health_.state();
  logged_reason_ = health_.reason();
  Log(health_.ready() ? LogLevel::kInfo : LogLevel::kWarning, "worker group",
      {{"address", options_.address},
       {"state", StateName(health_.state())},
       {"reason", health_.reason()}});
}

}  // namespace hanlin
