// hanlin.v1.TextGenerationService: parses, validates, names what is wrong, and hands over to a
// reactor per call. Thread-safe.
#ifndef HANLIN_GATEWAY_SERVICE_H_
#define HANLIN_GATEWAY_SERVICE_H_

#include <atomic>
#include <string>

#include "absl/status/statusor.h"
#include "gateway/call.h"
#include "hanlin/v1/text_generation.grpc.pb.h"

namespace hanlin {

class TextGenerationService final
    : public v1::TextGenerationService::WithRawCallbackMethod_StreamGenerate<
          v1::TextGenerationService::WithRawCallbackMethod_Generate<
              v1::TextGenerationService::WithCallbackMethod_ListModels<
                  v1::TextGenerationService::WithCallbackMethod_GetModelInfo<
                      v1::TextGenerationService::Service>>>> {
 public:
  explicit TextGenerationService(const CallEnvironment& environment) : environment_(environment) {}

  // From now on new calls are UNAVAILABLE.
  void Drain() { draining_ = true; }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* StreamGenerate(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;

 private:
  // Parses and checks everything that is known without the worker.
  template <typename Request>
  absl::Status Accept(const grpc::ByteBuffer& bytes, Request* request) const;
  // The model that `name` means: NOT_FOUND, or UNAVAILABLE while none is known.
  absl::StatusOr<v1::GetWorkerInfoResponse> FindModel(const std::string& name) const;

  const CallEnvironment environment_;
  std::atomic<bool> draining_{false};
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_SERVICE_H_
