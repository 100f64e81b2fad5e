// One worker group as the gateway sees it: a channel, GetWorkerInfo until it answers and fits, then
// one Session stream that carries all requests. The stream's reading thread hands each event
// straight to its request; when the stream ends, every request on it is told so at once.
//
// Thread-safe. Sinks are called without any lock of the group held, by one thread at a time for one
// request id, and not any more once Abort has returned and a call under way has ended; they may
// call Start and Abort.
#ifndef HANLIN_GATEWAY_WORKER_GROUP_H_
#define HANLIN_GATEWAY_WORKER_GROUP_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gateway/group_health.h"
#include "gateway/routing.h"
#include "hanlin/v1/worker.pb.h"

namespace hanlin {

// Where the events of a request go.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  virtual void OnEvent(const v1::RequestEvent& event, absl::Time now) = 0;
  // The session ended; nothing follows for `id`.
  virtual void OnLost(uint64_t id, const absl::Status& why) = 0;
};

class WorkerGroup : public std::enable_shared_from_this<WorkerGroup> {
 public:
  struct Options {
    std::string address;
    GroupHealth::Options health;
    absl::Duration info_timeout = absl::Seconds(2);
    // Whether a group with this info may serve: OK; FAILED_PRECONDITION (another model or
    // tokenizer); any other error = not known yet, ask again.
    std::function<absl::Status(const v1::GetWorkerInfoResponse&)> check;
  };
  static absl::StatusOr<std::shared_ptr<WorkerGroup>> Create(Options options);
  ~WorkerGroup();

  // Connects, watches, gives up: called a few times a second.
  void Tick(absl::Time now);
  // Takes no more requests and closes once the running ones have ended.
  void Retire();
  // Ends the session now; its requests are lost.
  void Close();
  // Closed or retired, and nothing of it is under way any more.
  bool Closed() const;

  // Queues the request; false when the group is not ready. request.id must be unique.
  bool Start(v1::WorkerRequest request, std::shared_ptr<RequestSink> sink);
  // No further event reaches the sink; the worker frees what the request holds. Unknown ids are
  // ignored.
  void Abort(uint64_t id);

  bool ready() const;
  GroupLoad load() const;
  const std::string& address() const { return options_.address; }
  // What the group said about itself when it was last asked.
  std::optional<v1::GetWorkerInfoResponse> info() const;
  // "10.0.0.1:7000 is connecting: not reachable: …"
  std::string Describe() const;

 private:
  struct Stub;  // Hides gRPC from this header.
  struct InfoCall;
  class Session;
  struct Request {
    std::shared_ptr<RequestSink> sink;
    int64_t prompt_tokens = 0;  // Until the first token, then 0.
  };
  using Requests = absl::flat_hash_map<uint64_t, Request>;

  explicit WorkerGroup(Options options);

  void AskInfo() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnInfo(const absl::Status& status, const v1::GetWorkerInfoResponse& info);
  void OnMessage(Session* session, const v1::SessionResponse& message);
  void OnReadsEnded(Session* session);
  void OnWritten(Session* session, bool ok);
  void OnSessionDone(const absl::Status& status);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(Requests::iterator request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LogState() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  std::unique_ptr<Stub> stub_;
  mutable absl::Mutex mutex_;
  GroupHealth health_ ABSL_GUARDED_BY(mutex_);
  bool retired_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<v1::GetWorkerInfoResponse> info_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<InfoCall> info_call_ ABSL_GUARDED_BY(mutex_);  // While one is under way.
  Session* session_ ABSL_GUARDED_BY(mutex_) = nullptr;           // Owns itself until it is done.
  bool writable_ ABSL_GUARDED_BY(mutex_) = false;                // The session takes writes.
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<v1::SessionRequest> outbox_ ABSL_GUARDED_BY(mutex_);  // The first is being written.
  Requests requests_ ABSL_GUARDED_BY(mutex_);
  GroupLoad own_ ABSL_GUARDED_BY(mutex_);     // Of requests_.
  GroupLoad others_ ABSL_GUARDED_BY(mutex_);  // Of other gateways, as last reported.
  GroupHealth::State logged_state_ ABSL_GUARDED_BY(mutex_) = GroupHealth::State::kOpening;
  std::string logged_reason_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_WORKER_GROUP_H_
