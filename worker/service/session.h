// One Session stream of a gateway: requests in, the events of each step out as one message. Thin:
// the engine decides.
//
// Backpressure: a session whose reader lags by kMaxQueued messages is not Ready(), so its requests
// pause until a message has left; one whose reader takes nothing for Options::write_timeout ends.
// Nothing grows without bound.
//
// Threads: OnEvents comes from the engine's thread, the reactions from gRPC's, SendLoad and End
// from the service's. Lock order: the engine's router, then the session; so the session calls the
// engine without its own lock.
#ifndef HANLIN_WORKER_SERVICE_SESSION_H_
#define HANLIN_WORKER_SERVICE_SESSION_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "hanlin/v1/worker.pb.h"
#include "worker/engine/engine.h"

namespace hanlin {

class Session final : public EventSink, public std::enable_shared_from_this<Session> {
 public:
  struct Options {
    Engine* engine = nullptr;
    // OK for the fingerprint of the tokenizer that belongs to the model.
    std::function<absl::Status(const std::string&)> check_fingerprint;
    absl::Duration write_timeout = absl::Seconds(30);
    // Told once, when gRPC is done with the stream.
    std::function<void(Session*)> on_done;
  };
  using Reactor = grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>;

  explicit Session(Options options) : options_(std::move(options)) {}

  // The reactor of this session, which keeps it alive until gRPC is done. Call once.
  Reactor* Start();

  void OnEvents(std::span<RequestEvent> events) override;
  bool Ready() const override { return queued_.load(std::memory_order_relaxed) < kMaxQueued; }

  // Sends the load when the reader keeps up, and ends the session when it has taken nothing for too
  // long.
  void Tick(const EngineLoad& load, absl::Time now);
  // Ends the stream with `status` once everything queued is written.
  void End(const absl::Status& status);

 private:
  class StreamReactor;
  using MessagePtr = std::unique_ptr<v1::SessionResponse>;

  // Messages of a session that may wait; a step is one.
  static constexpr int kMaxQueued = 8;

  void OnRequest(v1::SessionRequest* request);
  void OnWritten(bool ok);
  void OnDone();
  // The stream is of no more use: aborts its requests and finishes it.
  void Close(const absl::Status& status);

  MessagePtr TakeMessage();
  void Push(MessagePtr message);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  std::atomic<int> queued_ = 0;

  absl::Mutex mutex_;
  StreamReactor* reactor_ ABSL_GUARDED_BY(mutex_) = nullptr;  // null once it is done or finished
  std::deque<MessagePtr> outbox_ ABSL_GUARDED_BY(mutex_);
  MessagePtr writing_ ABSL_GUARDED_BY(mutex_);
  absl::Time write_began_ ABSL_GUARDED_BY(mutex_);
  std::vector<MessagePtr> spare_ ABSL_GUARDED_BY(mutex_);  // written messages keep their memory
  std::optional<absl::Status> ending_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_SERVICE_SESSION_H_
