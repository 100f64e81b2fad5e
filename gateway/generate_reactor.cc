// See generate_reactor.h.
#include "gateway/generate_reactor.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>

#include "common/rpc/status.h"

namespace hanlin {

// Collects one prompt's continuation.
class GenerateReactor::Part final : public CallOutput {
 public:
  explicit Part(std::shared_ptr<GenerateReactor> reactor) : reactor_(std::move(reactor)) {}

  void Emit(absl::FunctionRef<bool(v1::StreamGenerateResponse*)> fill) override { fill(&whole_); }
  void Done(const absl::Status& status) override {
    const auto reactor = std::move(reactor_);
    reactor->OnPartDone(status);
  }

  // Once done.
  void MoveTo(int prompt_index, v1::Choice* choice) {
    choice->set_prompt_index(prompt_index);
    choice->set_text(std::move(*whole_.mutable_text_delta()));
    choice->mutable_ids()->Swap(whole_.mutable_ids());
    choice->mutable_logprobs()->Swap(whole_.mutable_logprobs());
    choice->set_finish_reason(whole_.finish_reason());
    if (whole_.has_stop_string()) choice->set_stop_string(whole_.stop_string());
    if (whole_.has_stop_id()) choice->set_stop_id(whole_.stop_id());
    choice->mutable_usage()->Swap(whole_.mutable_usage());
    choice->mutable_timings()->Swap(whole_.mutable_timings());
    choice->set_seed(whole_.seed());
    choice->mutable_prompt_ids()->Swap(whole_.mutable_prompt_ids());
  }

 private:
  std::shared_ptr<GenerateReactor> reactor_;
  v1::StreamGenerateResponse whole_;
};

GenerateReactor::GenerateReactor(const CallEnvironment& environment,
                                 grpc::CallbackServerContext* context, grpc::ByteBuffer* response)
    : environment_(environment),
      context_("Generate", environment.metrics, context),
      response_(response) {}

void GenerateReactor::Start(const absl::Status& refusal) {
  self_ = shared_from_this();
  if (!refusal.ok()) return FinishWith(refusal);
  auto ticket = environment_.admission->AdmitRequests(request_.prompts_size());
  if (!ticket.ok()) return FinishWith(ticket.status());
  ticket_ = *std::move(ticket);
  for (const v1::Prompt& prompt : request_.prompts()) {
    parts_.push_back(std::make_shared<Part>(shared_from_this()));
    calls_.push_back(std::make_shared<GenerationCall>(environment_,
                                                      GenerationCall::Options{
                                                          .request_id = context_.request_id(),
                                                          .prompt = &prompt,
                                                          .parameters = &request_.parameters(),
                                                          .arrival = context_.arrival(),
                                                          .deadline = context_.deadline(),
                                                      },
                                                      parts_.back()));
  }
  {
    absl::MutexLock lock(&mutex_);
    unfinished_ = static_cast<int>(calls_.size());
  }
  for (const auto& call : calls_) call->Start();
}

void GenerateReactor::OnPartDone(const absl::Status& status) {
  bool all_done;
  bool first_failure;
  absl::Status failure;
  {
    absl::MutexLock lock(&mutex_);
    first_failure = !status.ok() && failure_.ok();
    if (first_failure) failure_ = status;
    failure = failure_;
    all_done = --unfinished_ == 0;
  }
  if (all_done) return FinishWith(failure);
  if (first_failure) CancelAll(absl::CancelledError("another prompt of the call failed"));
}

void GenerateReactor::CancelAll(const absl::Status& why) {
  for (const auto& call : calls_) call->Cancel(why);
}

void GenerateReactor::FinishWith(const absl::Status& status) {
  final_status_ = status;
  if (!status.ok()) return Finish(ToGrpc(status));
  bool own_buffer = false;
  Finish(grpc::SerializationTraits<v1::GenerateResponse>::Serialize(Collect(), response_,
                                                                    &own_buffer));
}

v1::GenerateResponse GenerateReactor::Collect() {
  v1::GenerateResponse response;
  for (size_t i = 0; i < parts_.size(); ++i) {
    parts_[i]->MoveTo(static_cast<int>(i), response.add_choices());
  }
  return response;
}

GenerationCall::Figures GenerateReactor::Sum() const {
  GenerationCall::Figures sum;
  for (const auto& call : calls_) {
    const GenerationCall::Figures figures = call->figures();
    sum.prompt_tokens += figures.prompt_tokens;
    sum.completion_tokens += figures.completion_tokens;
    sum.first_token_time = std::min(sum.first_token_time, figures.first_token_time);
  }
  return sum;
}

void GenerateReactor::OnCancel() { CancelAll(context_.CancelReason()); }

void GenerateReactor::OnDone() {
  context_.Finish(final_status_, Sum());
  ticket_.Release();
  self_.reset();
}

}  // namespace hanlin
