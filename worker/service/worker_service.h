// hanlin.v1.WorkerService over an engine: sessions, description and load. A ticker sends every
// session the load twice a second. Thread-safe.
#ifndef HANLIN_WORKER_SERVICE_WORKER_SERVICE_H_
#define HANLIN_WORKER_SERVICE_WORKER_SERVICE_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "hanlin/v1/worker.grpc.pb.h"
#include "worker/engine/engine.h"
#include "worker/service/session.h"

namespace hanlin {

class WorkerService final : public v1::WorkerService::CallbackService {
 public:
  struct Options {
    Engine* engine = nullptr;  // must outlive the service
    std::string model_name;
    std::string device;
    std::string dtype;
    int tp = 1;
    int32_t kv_block_tokens = 0;
    // SHA-256 of the model's tokenizer; empty = the first one seen is taken for it.
    std::string tokenizer_fingerprint;
    absl::Duration write_timeout = absl::Seconds(30);
    // Told the load on every tick; may be empty.
    std::function<void(const EngineLoad&)> on_tick;
  };
  explicit WorkerService(Options options);
  ~WorkerService() override;

  grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* Session(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetWorkerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetWorkerInfoRequest* request,
                                          v1::GetWorkerInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context,
                                    const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;

  // Ends all sessions with `status`, once what they have queued is written, and refuses new ones
  // with it.
  void EndSessions(const absl::Status& status);

 private:
  absl::Status CheckFingerprint(const std::string& fingerprint);
  void RunTicker();

  const Options options_;
  absl::Mutex mutex_;
  std::string fingerprint_ ABSL_GUARDED_BY(mutex_);
  absl::Status ended_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<hanlin::Session*, std::shared_ptr<hanlin::Session>> sessions_
      ABSL_GUARDED_BY(mutex_);
  absl::Notification stop_;
  std::thread ticker_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_SERVICE_WORKER_SERVICE_H_
