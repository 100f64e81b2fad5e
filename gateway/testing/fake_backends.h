// Stand-ins for the processes behind a gateway, each a real gRPC server on a Unix socket: a
// tokenizer whose ids are the text's bytes, and a worker whose behaviour a test chooses per request
// and whose requests it can look at. Thread-safe.
#ifndef HANLIN_GATEWAY_TESTING_FAKE_BACKENDS_H_
#define HANLIN_GATEWAY_TESTING_FAKE_BACKENDS_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/rpc/server.h"
#include "hanlin/v1/tokenizer.grpc.pb.h"
#include "hanlin/v1/worker.grpc.pb.h"

namespace hanlin::testing {

inline constexpr char kFakeFingerprint[] = "f00d";

// Id = byte of the text; the decoder turns ids back into those bytes.
class FakeTokenizer final : public v1::TokenizerService::Service {
 public:
  explicit FakeTokenizer(const std::string& address, std::string fingerprint = kFakeFingerprint);

  // Texts that contain `text` get `status` in answer.
  void Refuse(const std::string& text, grpc::Status status);
  // Each text takes this long, or until its caller is gone.
  void set_delay(absl::Duration delay);

  std::vector<std::string> request_ids() const;

 private:
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status GetDecoder(grpc::ServerContext* context, const v1::GetDecoderRequest* request,
                          v1::GetDecoderResponse* response) override;
  grpc::Status GetTokenizerInfo(grpc::ServerContext* context,
                                const v1::GetTokenizerInfoRequest* request,
                                v1::GetTokenizerInfoResponse* response) override;

  const std::string fingerprint_;
  mutable absl::Mutex mutex_;
  std::vector<std::string> request_ids_ ABSL_GUARDED_BY(mutex_);
  std::string refused_text_ ABSL_GUARDED_BY(mutex_);
  grpc::Status refusal_ ABSL_GUARDED_BY(mutex_);
  absl::Duration delay_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<RpcServer> server_;
};

// Streams 'a', 'b', 'c', … one id a step for every running request, all of a step in one message.
class FakeWorker final : public v1::WorkerService::Service {
 public:
  struct Options {
    std::string fingerprint = kFakeFingerprint;
    absl::Duration step = absl::Milliseconds(1);
    // Tokens of a request that sets no max_new_tokens.
    int default_tokens = 10;
    // Nothing is generated: requests wait.
    bool silent = false;
    // Every request is refused: RESOURCE_EXHAUSTED, to be tried again in 1.5 s.
    bool full = false;
  };
  FakeWorker(const std::string& address, Options options);
  ~FakeWorker() override;

  // As kill -9 looks from outside: every stream breaks, nothing listens any more.
  void Die();
  // As SIGSTOP looks from outside: connected and mute.
  void set_mute(bool mute);
  void set_silent(bool silent);

  int started() const;
  int running() const;
  std::vector<uint64_t> aborted() const;
  std::vector<v1::WorkerRequest> requests() const;
  bool WaitForStarted(int count) const;
  bool WaitForAborted(size_t count) const;

 private:
  using Stream = grpc::ServerReaderWriter<v1::SessionResponse, v1::SessionRequest>;

  grpc::Status Session(grpc::ServerContext* context, Stream* stream) override;
  grpc::Status GetWorkerInfo(grpc::ServerContext* context, const v1::GetWorkerInfoRequest* request,
                             v1::GetWorkerInfoResponse* response) override;
  void Run(Stream* stream, const bool* ended);
  v1::SessionResponse Step() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  struct Running {
    int generated = 0;
    int wanted = 0;
  };

  mutable absl::Mutex mutex_;
  Options options_ ABSL_GUARDED_BY(mutex_);
  bool mute_ ABSL_GUARDED_BY(mutex_) = false;
  bool dead_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<uint64_t, Running> running_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::WorkerRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> aborted_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> refused_ ABSL_GUARDED_BY(mutex_);
  uint64_t steps_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace hanlin::testing

#endif  // HANLIN_GATEWAY_TESTING_FAKE_BACKENDS_H_
