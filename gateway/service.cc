// See service.h.
#include "gateway/service.h"

#include <grpcpp/grpcpp.h>

#include <memory>

#include "common/rpc/status.h"
#include "common/status/status.h"
#include "gateway/generate_reactor.h"
#include "gateway/stream_reactor.h"
#include "gateway/validation.h"

namespace hanlin {

template <typename Request>
absl::Status TextGenerationService::Accept(const grpc::ByteBuffer& bytes, Request* request) const {
  if (draining_) return Unavailable("the gateway is shutting down");
  grpc::ByteBuffer copy(bytes);  // Shares the slices; parsing consumes a buffer.
  if (!grpc::SerializationTraits<Request>::Deserialize(&copy, request).ok()) {
    return InvalidArgument("the request does not parse, want a {} whose strings are valid UTF-8",
                           Request::descriptor()->full_name());
  }
  RETURN_IF_ERROR(Validate(*request));
  return FindModel(request->model()).status();
}

absl::StatusOr<v1::GetWorkerInfoResponse> TextGenerationService::FindModel(
    const std::string& name) const {
  const auto model = environment_.groups->model_info();
  if (!model.has_value()) {
    absl::Status serving = environment_.groups->Serving();
    return serving.ok() ? Unavailable("no worker group has answered yet") : serving;
  }
  if (!name.empty() && name != model->model()) {
    return NotFound("there is no model \"{}\", want \"{}\"", name, model->model());
  }
  return *model;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* TextGenerationService::StreamGenerate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  const auto reactor = std::make_shared<StreamReactor>(environment_, context);
  reactor->Start(Accept(*request, reactor->mutable_request()));
  return reactor.get();  // Owns itself; gRPC is not done with it before it has been returned.
}

grpc::ServerUnaryReactor* TextGenerationService::Generate(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* response) {
  const auto reactor = std::make_shared<GenerateReactor>(environment_, context, response);
  reactor->Start(Accept(*request, reactor->mutable_request()));
  return reactor.get();
}

grpc::ServerUnaryReactor* TextGenerationService::ListModels(grpc::CallbackServerContext* context,
                                                            const v1::ListModelsRequest*,
                                                            v1::ListModelsResponse* response) {
  const auto model = environment_.groups->model_info();
  if (model.has_value()) response->add_models(model->model());
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* TextGenerationService::GetModelInfo(
    grpc::CallbackServerContext* context, const v1::GetModelInfoRequest* request,
    v1::GetModelInfoResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto model = FindModel(request->model());
  if (model.ok()) {
    response->set_model(model->model());
    response->set_context_tokens(model->context_tokens());
    response->set_vocabulary_size(model->vocabulary_size());
    response->set_dtype(model->dtype());
    response->set_parameters(model->parameters());
    if (const auto tokenizer = environment_.tokenizer->identity(); tokenizer != nullptr) {
      response->set_tokenizer_fingerprint(tokenizer->fingerprint);
    }
    *response->mutable_end_token_ids() = model->end_token_ids();
    for (const std::string_view name : NotImplemented()) {
      response->add_not_implemented(std::string(name));
    }
    response->set_ready_groups(environment_.groups->ready_groups());
    response->set_tensor_parallel_size(model->tensor_parallel_size());
    *response->mutable_default_sampling() = model->default_sampling();
    response->set_default_max_new_tokens(model->default_max_new_tokens());
  }
  reactor->Finish(ToGrpc(model.status()));
  return reactor;
}

}  // namespace hanlin
