// See tokenizer_client.h.
#include "gateway/tokenizer_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "common/obs/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "hanlin/v1/tokenizer.grpc.pb.h"
#include "tokenizer_svc/wire/decoder_wire.h"

namespace hanlin {
namespace {

constexpr absl::Duration kPollTimeout = absl::Seconds(2);
constexpr absl::Duration kDecoderTimeout = absl::Seconds(30);
// Between two polls of a replica: while it answers, and while it does not.
constexpr absl::Duration kPollInterval = absl::Seconds(1);
constexpr absl::Duration kRetryInterval = absl::Milliseconds(50);
constexpr int kMaxAttempts = 3;

// One asynchronous call with all it needs; its callback owns it.
template <typename Request, typename Response>
struct UnaryCall {
  grpc::ClientContext context;
  Request request;
  Response response;
};

}  // namespace

struct TokenizerClient::Replica {
  std::string address;
  std::unique_ptr<v1::TokenizerService::Stub> stub;
  // Guarded by the client's lock.
  bool polling = false;
  absl::Time next_poll = absl::InfinitePast();
  std::string fingerprint;  // Empty while it does not answer.
  std::string failure = "not asked yet";
};

struct TokenizerClient::EncodeCall {
  v1::TokenizeRequest request;
  std::string request_id;
  absl::Time deadline;
  EncodeCallback callback;
  int attempts = 0;
  // Of the present attempt.
  std::shared_ptr<Replica> replica;
  std::unique_ptr<grpc::ClientContext> context;
  v1::TokenizeResponse response;
};

TokenizerClient::TokenizerClient(Tls tls) : tls_(std::move(tls)) {}
TokenizerClient::~TokenizerClient() = default;

void TokenizerClient::SetAddresses(const std::vector<std::string>& addresses) {
  absl::MutexLock lock(&mutex_);
  std::erase_if(replicas_, [&](const auto& replica) {
    return std::find(addresses.begin(), addresses.end(), replica->address) == addresses.end();
  });
  for (const std::string& address : addresses) {
    if (std::any_of(replicas_.begin(), replicas_.end(),
                    [&](const auto& replica) { return replica->address == address; })) {
      continue;
    }
    const auto channel =
        OpenChannel(address, {.ca_certificate = tls_.ca, .server_name = tls_.name});
    if (!channel.ok()) {
      Log(LogLevel::kError, "tokenizer",
          {{"address", address}, {"reason", Message(channel.status())}});
      continue;
    }
    auto replica = std::make_shared<Replica>();
    replica->address = address;
    replica->stub = v1::TokenizerService::NewStub(*channel);
    replicas_.push_back(std::move(replica));
  }
}

void TokenizerClient::Tick(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return;
  for (const auto& replica : replicas_) {
    if (!replica->polling && now >= replica->next_poll) Poll(replica);
  }
  Adopt();
}

void TokenizerClient::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

void TokenizerClient::Poll(const std::shared_ptr<Replica>& replica) {
  replica->polling = true;
  auto call =
      std::make_shared<UnaryCall<v1::GetTokenizerInfoRequest, v1::GetTokenizerInfoResponse>>();
  call->context.set_deadline(absl::ToChronoTime(absl::Now() + kPollTimeout));
  replica->stub->async()->GetTokenizerInfo(
      &call->context, &call->request, &call->response,
      [self = shared_from_this(), replica, call](const grpc::Status& status) {
        self->OnInfo(replica, FromGrpc(status), call->response.fingerprint());
      });
}

void TokenizerClient::OnInfo(const std::shared_ptr<Replica>& replica, const absl::Status& status,
                             const std::string& fingerprint) {
  absl::MutexLock lock(&mutex_);
  replica->polling = false;
  replica->fingerprint = status.ok() ? fingerprint : "";
  replica->failure = status.ok() ? "" : Message(status);
  replica->next_poll = absl::Now() + (status.ok() ? kPollInterval : kRetryInterval);
}

// Keeps the identity while a replica has it, else takes that of the first replica that answers.
void TokenizerClient::Adopt() {
  if (fetching_decoder_) return;
  const auto answers = [](const auto& replica) { return !replica->fingerprint.empty(); };
  if (identity_ != nullptr && std::any_of(replicas_.begin(), replicas_.end(), [&](const auto& r) {
        return r->fingerprint == identity_->fingerprint;
      })) {
    return;
  }
  const auto first = std::find_if(replicas_.begin(), replicas_.end(), answers);
  if (first != replicas_.end()) FetchDecoder(*first);
}

void TokenizerClient::FetchDecoder(const std::shared_ptr<Replica>& replica) {
  fetching_decoder_ = true;
  auto call = std::make_shared<UnaryCall<v1::GetDecoderRequest, v1::GetDecoderResponse>>();
  call->request.set_fingerprint(replica->fingerprint);
  call->context.set_deadline(absl::ToChronoTime(absl::Now() + kDecoderTimeout));
  replica->stub->async()->GetDecoder(
      &call->context, &call->request, &call->response,
      [self = shared_from_this(), replica, call](const grpc::Status& status) {
        self->OnDecoder(call->request.fingerprint(),
                        status.ok() ? DecoderSpecFromProto(call->response.decoder())
                                    : absl::StatusOr<DecoderSpec>(FromGrpc(status)));
      });
}

void TokenizerClient::OnDecoder(const std::string& fingerprint, absl::StatusOr<DecoderSpec> spec) {
  absl::MutexLock lock(&mutex_);
  fetching_decoder_ = false;
  if (!spec.ok()) {
    const std::string failure = Message(spec.status());
    if (failure != decoder_failure_) {
      Log(LogLevel::kError, "no decoder from the tokenizer", {{"reason", failure}});
    }
    decoder_failure_ = failure;
    return;
  }
  decoder_failure_.clear();
  auto identity = std::make_shared<TokenizerIdentity>();
  identity->fingerprint = fingerprint;
  identity->spec = std::make_shared<const DecoderSpec>(*std::move(spec));
  identity_ = std::move(identity);
  Log(LogLevel::kInfo, "tokenizer in use", {{"fingerprint", fingerprint}});
}

std::shared_ptr<TokenizerClient::Replica> TokenizerClient::Next(const std::string& fingerprint) {
  for (size_t i = 0; i < replicas_.size(); ++i) {
    const auto& replica = replicas_[turn_++ % replicas_.size()];
    if (replica->fingerprint == fingerprint) return replica;
  }
  return nullptr;
}

void TokenizerClient::Encode(const std::string& text, const std::string& request_id,
                             std::string fingerprint, absl::Time deadline,
                             EncodeCallback callback) {
  auto call = std::make_shared<EncodeCall>();
  call->request.set_text(text);
  call->request.set_as_prompt(true);
  call->request.set_fingerprint(std::move(fingerprint));
  call->request_id = request_id;
  call->deadline = deadline;
  call->callback = std::move(callback);
  TryEncode(call);
}

void TokenizerClient::TryEncode(const std::shared_ptr<EncodeCall>& call) {
  {
    absl::MutexLock lock(&mutex_);
    call->replica = closed_ ? nullptr : Next(call->request.fingerprint());
  }
  if (call->replica == nullptr) {
    absl::Status why = Reachable();
    return call->callback(why.ok() ? Unavailable("the tokenizer has become another one") : why);
  }
  ++call->attempts;
  call->context = std::make_unique<grpc::ClientContext>();
  call->context->set_deadline(absl::ToChronoTime(call->deadline));
  call->context->AddMetadata("x-request-id", call->request_id);
  call->replica->stub->async()->Tokenize(
      call->context.get(), &call->request, &call->response,
      [self = shared_from_this(), call](const grpc::Status& grpc_status) {
        const absl::Status status = FromGrpc(grpc_status);
        if (status.ok()) {
          return call->callback(
              std::vector<int32_t>(call->response.ids().begin(), call->response.ids().end()));
        }
        if (!absl::IsUnavailable(status)) return call->callback(status);
        {  // Out of turn until it answers a poll.
          absl::MutexLock lock(&self->mutex_);
          call->replica->fingerprint.clear();
          call->replica->failure = Message(status);
          call->replica->next_poll = absl::Now();
        }
        if (call->attempts < kMaxAttempts) return self->TryEncode(call);
        call->callback(Annotate(status, "the tokenizer is not reachable"));
      });
}

std::shared_ptr<const TokenizerIdentity> TokenizerClient::identity() const {
  absl::MutexLock lock(&mutex_);
  return identity_;
}

absl::Status TokenizerClient::Reachable() const {
  absl::MutexLock lock(&mutex_);
  std::string why;
  for (const auto& replica : replicas_) {
    if (identity_ != nullptr && replica->fingerprint == identity_->fingerprint) {
      return absl::OkStatus();
    }
    std::string_view failure = replica->failure.empty() ? decoder_failure_ : replica->failure;
    if (failure.empty()) failure = "its decoder is not here yet";
    why += fmt::format("; {}: {}", replica->address, failure);
  }
  return Unavailable("no tokenizer is reachable{}", why.empty() ? "; none is known" : why);
}

}  // namespace hanlin
