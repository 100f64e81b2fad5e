// Generation by the engine in this process; see backend.h. From the engine's events on, the text
// takes the gateway's way (ChoiceRelay), so a text does not depend on who made it.
#include <deque>
#include <mutex>

#include "absl/synchronization/mutex.h"
#include "cli/generate/backend.h"
#include "common/status/status.h"
#include "gateway/relay.h"
#include "tokenizer_svc/core/stream_decoder.h"
#include "tokenizer_svc/core/tokenizer.h"
#include "worker/engine/local.h"
#include "worker/service/wire.h"

namespace hanlin::cli {
namespace {

// The events of one request, from the engine's thread to the caller's.
class EventQueue final : public EventSink {
 public:
  void OnEvents(std::span<RequestEvent> events) override {
    const absl::MutexLock lock(&mutex_);
    for (RequestEvent& event : events) events_.push_back(std::move(event));
  }

  // Waits for the next event.
  RequestEvent Next() {
    const absl::MutexLock lock(&mutex_, absl::Condition(this, &EventQueue::HasEvent));
    RequestEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  bool HasEvent() const { return !events_.empty(); }

  absl::Mutex mutex_;
  std::deque<RequestEvent> events_;
};

class LocalBackend final : public Backend {
 public:
  LocalBackend(std::unique_ptr<LocalModel> model, Engine* engine,
               std::shared_ptr<const Tokenizer> tokenizer)
      : model_(std::move(model)), engine_(engine), tokenizer_(std::move(tokenizer)) {}

  absl::Status Generate(const v1::StreamGenerateRequest& request,
                        const OnPiece& on_piece) override {
    ASSIGN_OR_RETURN(const v1::WorkerRequest start, MakeStart(request));
    const auto queue = std::make_shared<EventQueue>();
    {
      const absl::MutexLock lock(&mutex_);
      if (cancelled_) return Cancelled("cancelled");
      running_.push_back(queue);
    }
    absl::Status status = Run(request, start, queue, on_piece);
    const absl::MutexLock lock(&mutex_);
    std::erase(running_, queue);
    return status;
  }

  void CancelAll() override {
    const absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    for (const auto& queue : running_) engine_->Abort(queue.get(), kRequestId);
  }

 private:
  // Every request has a sink of its own.
  static constexpr uint64_t kRequestId = 1;

  absl::StatusOr<v1::WorkerRequest> MakeStart(const v1::StreamGenerateRequest& request) const {
    v1::WorkerRequest start;
    start.set_id(kRequestId);
    if (request.prompt().has_text()) {
      ASSIGN_OR_RETURN(const Encoding encoding, tokenizer_->EncodePrompt(request.prompt().text()));
      start.mutable_ids()->Add(encoding.ids.begin(), encoding.ids.end());
    } else {
      *start.mutable_ids() = request.prompt().token_ids().ids();
    }
    start.set_num_prompt_tokens(start.ids_size());
    const v1::GenerationParameters& parameters = request.parameters();
    *start.mutable_sampling() = parameters.sampling();
    *start.mutable_stopping() = parameters.stopping();
    if (parameters.has_logprobs()) start.set_logprobs(parameters.logprobs());
    return start;
  }

  std::string EchoText(const v1::StreamGenerateRequest& request) const {
    if (!request.parameters().echo()) return "";
    if (request.prompt().has_text()) return request.prompt().text();
    const auto& ids = request.prompt().token_ids().ids();
    return StreamDecoder::Decode(*tokenizer_->decoder_spec(),
                                 {ids.data(), static_cast<size_t>(ids.size())});
  }

  absl::Status Run(const v1::StreamGenerateRequest& request, const v1::WorkerRequest& start,
                   const std::shared_ptr<EventQueue>& queue, const OnPiece& on_piece) {
    const SubmitResult submitted = engine_->Submit(FromWire(start, absl::Now()), queue);
    RETURN_IF_ERROR(submitted.status);
    {
      const absl::MutexLock lock(&mutex_);  // CancelAll may have come before Submit
      if (cancelled_) engine_->Abort(queue.get(), kRequestId);
    }
    ASSIGN_OR_RETURN(ChoiceRelay relay,
                     ChoiceRelay::Create({.spec = tokenizer_->decoder_spec(),
                                          .prompt_ids = {start.ids().begin(), start.ids().end()},
                                          .stopping = &request.parameters().stopping(),
                                          .lead_text = EchoText(request),
                                          .seed = submitted.seed,
                                          .start = absl::Now()}));
    for (int64_t number = 0;; ++number) {
      const RequestEvent event = queue->Next();
      if (!event.error.ok()) return event.error;
      v1::RequestEvent proto;
      ToWire(event, &proto);
      v1::StreamGenerateResponse piece;
      const ChoiceRelay::Outcome outcome = relay.Append(proto, absl::Now(), &piece);
      piece.set_sequence_number(number);
      on_piece(piece);
      if (outcome == ChoiceRelay::Outcome::kStopped) engine_->AbortAll(queue.get());
      if (outcome == ChoiceRelay::Outcome::kRunning) continue;
      if (piece.finish_reason() == v1::FINISH_REASON_CANCELLED) return Cancelled("cancelled");
      return absl::OkStatus();
    }
  }

  const std::unique_ptr<LocalModel> model_;
  Engine* const engine_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  absl::Mutex mutex_;
  std::vector<std::shared_ptr<EventQueue>> running_;
  bool cancelled_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeLocalBackend(const ModelFlags& flags) {
  ASSIGN_OR_RETURN(auto tokenizer, LoadModelTokenizer(flags));
  ASSIGN_OR_RETURN(auto model, LoadModel(flags, /*scoring=*/false));
  ASSIGN_OR_RETURN(Engine* const engine, model->engine());
  return std::make_unique<LocalBackend>(std::move(model), engine, std::move(tokenizer));
}

}  // namespace hanlin::cli
