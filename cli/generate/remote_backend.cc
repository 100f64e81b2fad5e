// Generation by a server over gRPC; see backend.h.
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <mutex>
#include <set>

#include "cli/generate/backend.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "hanlin/v1/text_generation.grpc.pb.h"

namespace hanlin::cli {
namespace {

class RemoteBackend final : public Backend {
 public:
  RemoteBackend(const std::shared_ptr<grpc::Channel>& channel, absl::Duration timeout)
      : stub_(v1::TextGenerationService::NewStub(channel)), timeout_(timeout) {}

  absl::Status Generate(const v1::StreamGenerateRequest& request,
                        const OnPiece& on_piece) override {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout_));
    {
      const std::lock_guard lock(mutex_);
      if (cancelled_) return Cancelled("cancelled");
      running_.insert(&context);
    }
    auto reader = stub_->StreamGenerate(&context, request);
    v1::StreamGenerateResponse piece;
    while (reader->Read(&piece)) on_piece(piece);
    const grpc::Status status = reader->Finish();
    const std::lock_guard lock(mutex_);
    running_.erase(&context);
    return FromGrpc(status);
  }

  void CancelAll() override {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    for (grpc::ClientContext* context : running_) context->TryCancel();
  }

 private:
  const std::unique_ptr<v1::TextGenerationService::Stub> stub_;
  const absl::Duration timeout_;
  std::mutex mutex_;
  std::set<grpc::ClientContext*> running_;
  bool cancelled_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeRemoteBackend(const RemoteOptions& options) {
  ASSIGN_OR_RETURN(auto channel,
                   OpenChannel(options.target, {.ca_certificate = options.ca_certificate}));
  return std::make_unique<RemoteBackend>(std::move(channel), options.timeout);
}

}  // namespace hanlin::cli
