// Generate: several prompts side by side, each a GenerationCall whose pieces are appended to one
// message, so a unary answer is the stream's pieces put together. The first prompt that fails fails
// the call and cancels the others.
//
// Raw bytes as in stream_reactor.h. Thread-safe; owns itself from Start until gRPC is done with it.
#ifndef HANLIN_GATEWAY_GENERATE_REACTOR_H_
#define HANLIN_GATEWAY_GENERATE_REACTOR_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gateway/admission.h"
#include "gateway/call.h"
#include "gateway/rpc_context.h"
#include "hanlin/v1/text_generation.pb.h"

namespace hanlin {

class GenerateReactor final : public grpc::ServerUnaryReactor,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  // `response` is filled before the call finishes; gRPC owns it.
  GenerateReactor(const CallEnvironment& environment, grpc::CallbackServerContext* context,
                  grpc::ByteBuffer* response);

  v1::GenerateRequest* mutable_request() { return &request_; }
  // Runs the request, or ends the call at once with `refusal` when that is not OK.
  void Start(const absl::Status& refusal);

  // gRPC's reactions.
  void OnCancel() override;
  void OnDone() override;

 private:
  class Part;

  void OnPartDone(const absl::Status& status);
  void CancelAll(const absl::Status& why);
  void FinishWith(const absl::Status& status);
  v1::GenerateResponse Collect();
  GenerationCall::Figures Sum() const;

  const CallEnvironment environment_;
  const RpcContext context_;
  grpc::ByteBuffer* const response_;
  v1::GenerateRequest request_;
  Admission::Ticket ticket_;
  std::vector<std::shared_ptr<Part>> parts_;  // Set by Start, before anything can happen.
  std::vector<std::shared_ptr<GenerationCall>> calls_;
  std::shared_ptr<GenerateReactor> self_;  // Until OnDone.
  absl::Status final_status_;

  absl::Mutex mutex_;
  int unfinished_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // The first one.
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_GENERATE_REACTOR_H_
