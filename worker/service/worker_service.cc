// See worker_service.h.
#include "worker/service/worker_service.h"

#include <vector>

#include "absl/time/clock.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "worker/service/wire.h"

namespace hanlin {
namespace {

// Gateways take a worker that is silent for 3 s for gone.
constexpr absl::Duration kTick = absl::Milliseconds(500);

// A stream that is refused at once.
class RefusedSession final : public Session::Reactor {
 public:
  explicit RefusedSession(const absl::Status& status) { Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

WorkerService::WorkerService(Options options)
    : options_(std::move(options)), fingerprint_(options_.tokenizer_fingerprint) {
  ticker_ = std::thread([this] { RunTicker(); });
}

WorkerService::~WorkerService() {
  stop_.Notify();
  ticker_.join();
}

grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* WorkerService::Session(
    grpc::CallbackServerContext*) {
  auto session = std::make_shared<hanlin::Session>(hanlin::Session::Options{
      .engine = options_.engine,
      .check_fingerprint = [this](const std::string& seen) { return CheckFingerprint(seen); },
      .write_timeout = options_.write_timeout,
      .on_done =
          [this](hanlin::Session* done) {
            absl::MutexLock lock(&mutex_);
            sessions_.erase(done);
          }});
  {
    absl::MutexLock lock(&mutex_);
    if (!ended_.ok()) return new RefusedSession(ended_);
    sessions_[session.get()] = session;
  }
  auto* reactor = session->Start();
  session->Tick(options_.engine->load(), absl::Now());
  return reactor;
}

grpc::ServerUnaryReactor* WorkerService::GetWorkerInfo(grpc::CallbackServerContext* context,
                                                       const v1::GetWorkerInfoRequest*,
                                                       v1::GetWorkerInfoResponse* response) {
  const ModelConfig& config = options_.engine->config();
  response->set_model(options_.model_name);
  response->set_context_tokens(config.max_positions);
  response->set_vocabulary_size(config.vocab_size);
  response->set_dtype(options_.dtype);
  response->set_device(options_.device);
  response->set_parameters(config.num_parameters());
  for (const int32_t id : config.end_token_ids) response->add_end_token_ids(id);
  response->set_tensor_parallel_size(options_.tp);
  response->set_kv_block_tokens(options_.kv_block_tokens);
  response->set_total_kv_blocks(options_.engine->load().total_kv_blocks);
  ToWire(options_.engine->defaults(), response->mutable_default_sampling());
  response->set_default_max_new_tokens(options_.engine->defaults().max_new_tokens);
  {
    absl::MutexLock lock(&mutex_);
    response->set_tokenizer_fingerprint(fingerprint_);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* WorkerService::GetLoad(grpc::CallbackServerContext* context,
                                                 const v1::GetLoadRequest*,
                                                 v1::GetLoadResponse* response) {
  ToWire(options_.engine->load(), response->mutable_load());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

void WorkerService::EndSessions(const absl::Status& status) {
  std::vector<std::shared_ptr<hanlin::Session>> sessions;
  {
    absl::MutexLock lock(&mutex_);
    ended_ = status;
    for (const auto& [key, session] : sessions_) sessions.push_back(session);
  }
  for (const auto& session : sessions) session->End(status);
}

absl::Status WorkerService::CheckFingerprint(const std::string& fingerprint) {
  absl::MutexLock lock(&mutex_);
  if (fingerprint_.empty()) fingerprint_ = fingerprint;
  if (fingerprint == fingerprint_ && !fingerprint.empty()) return absl::OkStatus();
  return FailedPrecondition("the tokenizer's fingerprint is \"{}\", want \"{}\" of this model",
                            fingerprint, fingerprint_);
}

void WorkerService::RunTicker() {
  while (!stop_.WaitForNotificationWithTimeout(kTick)) {
    const EngineLoad load = options_.engine->load();
    if (options_.on_tick) options_.on_tick(load);
    std::vector<std::shared_ptr<hanlin::Session>> sessions;
    {
      absl::MutexLock lock(&mutex_);
      for (const auto& [key, session] : sessions_) sessions.push_back(session);
    }
    const absl::Time now = absl::Now();
    for (const auto& session : sessions) session->Tick(load, now);
  }
}

}  // namespace hanlin
