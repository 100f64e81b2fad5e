// See fake_backends.h.
#include "gateway/testing/fake_backends.h"

#include <utility>

#include "common/status/status.h"

namespace hanlin::testing {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

std::unique_ptr<RpcServer> Serve(const std::string& address, grpc::Service* service) {
  auto server = RpcServer::Create({.address = address, .services = {service}});
  return server.ok() ? *std::move(server) : nullptr;
}

}  // namespace

FakeTokenizer::FakeTokenizer(const std::string& address, std::string fingerprint)
    : fingerprint_(std::move(fingerprint)), server_(Serve(address, this)) {}

void FakeTokenizer::Refuse(const std::string& text, grpc::Status status) {
  absl::MutexLock lock(&mutex_);
  refused_text_ = text;
  refusal_ = std::move(status);
}

void FakeTokenizer::set_delay(absl::Duration delay) {
  absl::MutexLock lock(&mutex_);
  delay_ = delay;
}

std::vector<std::string> FakeTokenizer::request_ids() const {
  absl::MutexLock lock(&mutex_);
  return request_ids_;
}

grpc::Status FakeTokenizer::Tokenize(grpc::ServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) {
  absl::Duration delay;
  {
    absl::MutexLock lock(&mutex_);
    if (!refusal_.ok() && request->text().find(refused_text_) != std::string::npos) return refusal_;
    delay = delay_;
  }
  const absl::Time until = absl::Now() + delay;
  while (absl::Now() < until && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(5));
  for (const char c : request->text()) response->add_ids(static_cast<unsigned char>(c));
  const auto id = context->client_metadata().find("x-request-id");
  absl::MutexLock lock(&mutex_);
  if (id != context->client_metadata().end()) {
    request_ids_.emplace_back(id->second.data(), id->second.size());
  }
  return grpc::Status::OK;
}

grpc::Status FakeTokenizer::GetDecoder(grpc::ServerContext*, const v1::GetDecoderRequest*,
                                       v1::GetDecoderResponse* response) {
  v1::DecoderSpec* spec = response->mutable_decoder();
  spec->set_kind(v1::DECODER_KIND_BYTES);
  for (int byte = 0; byte < 256; ++byte) spec->add_pieces(std::string(1, static_cast<char>(byte)));
  spec->set_attributes(std::string(256, '\0'));
  response->set_fingerprint(fingerprint_);
  return grpc::Status::OK;
}

grpc::Status FakeTokenizer::GetTokenizerInfo(grpc::ServerContext*,
                                             const v1::GetTokenizerInfoRequest*,
                                             v1::GetTokenizerInfoResponse* response) {
  response->set_fingerprint(fingerprint_);
  return grpc::Status::OK;
}

FakeWorker::FakeWorker(const std::string& address, Options options)
    : options_(std::move(options)), server_(Serve(address, this)) {}

FakeWorker::~FakeWorker() { Die(); }

void FakeWorker::Die() {
  {
    absl::MutexLock lock(&mutex_);
    dead_ = true;
  }
  if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
}

void FakeWorker::set_mute(bool mute) {
  absl::MutexLock lock(&mutex_);
  mute_ = mute;
}

void FakeWorker::set_silent(bool silent) {
  absl::MutexLock lock(&mutex_);
  options_.silent = silent;
}

int FakeWorker::started() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(requests_.size());
}

int FakeWorker::running() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(running_.size());
}

std::vector<uint64_t> FakeWorker::aborted() const {
  absl::MutexLock lock(&mutex_);
  return aborted_;
}

std::vector<v1::WorkerRequest> FakeWorker::requests() const {
  absl::MutexLock lock(&mutex_);
  return requests_;
}

bool FakeWorker::WaitForStarted(int count) const {
  absl::MutexLock lock(&mutex_);
  const auto reached = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return static_cast<int>(requests_.size()) >= count;
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&reached), kPatience);
}

bool FakeWorker::WaitForAborted(size_t count) const {
  absl::MutexLock lock(&mutex_);
  const auto reached = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return aborted_.size() >= count; };
  return mutex_.AwaitWithTimeout(absl::Condition(&reached), kPatience);
}

grpc::Status FakeWorker::GetWorkerInfo(grpc::ServerContext*, const v1::GetWorkerInfoRequest*,
                                       v1::GetWorkerInfoResponse* response) {
  absl::MutexLock lock(&mutex_);
  response->set_model("fake");
  response->set_context_tokens(2048);
  response->set_vocabulary_size(256);
  response->set_tokenizer_fingerprint(options_.fingerprint);
  response->set_tensor_parallel_size(1);
  return grpc::Status::OK;
}

grpc::Status FakeWorker::Session(grpc::ServerContext*, Stream* stream) {
  bool ended = false;
  std::thread steps([&] { Run(stream, &ended); });
  v1::SessionRequest message;
  while (stream->Read(&message)) {
    absl::MutexLock lock(&mutex_);
    if (message.has_start()) {
      const v1::WorkerRequest& start = message.start();
      const v1::StoppingParameters& stopping = start.stopping();
      requests_.push_back(start);
      if (options_.full) {
        refused_.push_back(start.id());
      } else {
        running_[start.id()].wanted =
            stopping.has_max_new_tokens() ? stopping.max_new_tokens() : options_.default_tokens;
      }
    } else {
      aborted_.push_back(message.abort());
      running_.erase(message.abort());
    }
  }
  {
    absl::MutexLock lock(&mutex_);
    ended = true;
    running_.clear();
  }
  steps.join();
  return grpc::Status::OK;
}

void FakeWorker::Run(Stream* stream, const bool* ended) {
  absl::Time next_load = absl::InfinitePast();
  while (true) {
    v1::SessionResponse message;
    absl::Duration step;
    {
      absl::MutexLock lock(&mutex_);
      if (*ended || dead_) return;
      step = options_.step;
      if (!mute_) {
        if (!options_.silent) message = Step();
        if (absl::Now() >= next_load) {
          message.mutable_load()->set_steps(++steps_);
          message.mutable_load()->set_running_requests(static_cast<int>(running_.size()));
          next_load = absl::Now() + absl::Milliseconds(200);
        }
      }
    }
    if ((message.events_size() > 0 || message.has_load()) && !stream->Write(message)) return;
    absl::SleepFor(step);
  }
}

v1::SessionResponse FakeWorker::Step() {
  v1::SessionResponse message;
  for (const uint64_t id : std::exchange(refused_, {})) {
    v1::RequestEvent* event = message.add_events();
    event->set_id(id);
    event->set_error_code(grpc::RESOURCE_EXHAUSTED);
    event->set_error_message("the queue is full");
    event->set_retry_after_ms(1500);
  }
  for (auto it = running_.begin(); it != running_.end();) {
    v1::RequestEvent* event = message.add_events();
    event->set_id(it->first);
    event->add_ids('a' + it->second.generated++ % 26);
    const bool last = it->second.generated >= it->second.wanted;
    if (last) event->set_finish_reason(v1::FINISH_REASON_LENGTH);
    it = last ? running_.erase(it) : std::next(it);
  }
  return message;
}

}  // namespace hanlin::testing
