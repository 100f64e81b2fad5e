// See service.h.
#include "tokenizer_svc/service.h"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "common/obs/log.h"
#include "common/obs/metrics.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "hanlin/v1/tokenizer.grpc.pb.h"
#include "tokenizer_svc/core/stream_decoder.h"
#include "tokenizer_svc/wire/decoder_wire.h"

namespace hanlin {
namespace {

using Clock = std::chrono::steady_clock;

// The caller's x-request-id, or nothing.
std::string RequestId(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find("x-request-id");
  if (found == context.client_metadata().end()) return {};
  return std::string(found->second.data(), found->second.size());
}

struct Metrics {
  explicit Metrics(prometheus::Registry& registry)
      : requests(prometheus::BuildCounter()
                     .Name("hanlin_tokenizer_requests_total")
                     .Help("Finished requests by method and status code")
                     .Register(registry)),
        tokens(prometheus::BuildCounter()
                   .Name("hanlin_tokenizer_tokens_total")
                   .Help("Token ids made from text or turned into text, by method")
                   .Register(registry)),
        seconds(prometheus::BuildHistogram()
                    .Name("hanlin_tokenizer_request_seconds")
                    .Help("Time spent on a request in seconds, by method")
                    .Register(registry)) {}

  prometheus::Family<prometheus::Counter>& requests;
  prometheus::Family<prometheus::Counter>& tokens;
  prometheus::Family<prometheus::Histogram>& seconds;
};

class Service final : public v1::TokenizerService::CallbackService {
 public:
  Service(std::shared_ptr<const Tokenizer> tokenizer, prometheus::Registry& registry)
      : tokenizer_(std::move(tokenizer)),
        decoder_(DecoderSpecToProto(*tokenizer_->decoder_spec())),
        metrics_(registry) {}

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    return Run(context, "Tokenize", [&] { return DoTokenize(*request, response); });
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    return Run(context, "Detokenize", [&] { return DoDetokenize(*request, response); });
  }

  grpc::ServerUnaryReactor* GetDecoder(grpc::CallbackServerContext* context,
                                       const v1::GetDecoderRequest* request,
                                       v1::GetDecoderResponse* response) override {
    return Run(context, "GetDecoder", [&]() -> absl::Status {
      RETURN_IF_ERROR(CheckFingerprint(request->fingerprint()));
      *response->mutable_decoder() = decoder_;
      response->set_fingerprint(tokenizer_->fingerprint());
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* GetTokenizerInfo(grpc::CallbackServerContext* context,
                                             const v1::GetTokenizerInfoRequest*,
                                             v1::GetTokenizerInfoResponse* response) override {
    return Run(context, "GetTokenizerInfo", [&] {
      response->set_fingerprint(tokenizer_->fingerprint());
      response->set_kind(std::string(tokenizer_->kind()));
      response->set_vocab_size(tokenizer_->vocab_size());
      response->set_max_text_bytes(static_cast<uint32_t>(Tokenizer::kMaxTextBytes));
      return absl::OkStatus();
    });
  }

 private:
  absl::Status CheckFingerprint(const std::string& wanted) const {
    if (wanted.empty() || wanted == tokenizer_->fingerprint()) return absl::OkStatus();
    return FailedPrecondition("the tokenizer's fingerprint is {}, the caller wants {}",
                              tokenizer_->fingerprint(), wanted);
  }

  absl::Status DoTokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse* response) {
    RETURN_IF_ERROR(CheckFingerprint(request.fingerprint()));
    ASSIGN_OR_RETURN(const Encoding encoding, request.as_prompt()
                                                  ? tokenizer_->EncodePrompt(request.text())
                                                  : tokenizer_->Encode(request.text()));
    response->mutable_ids()->Add(encoding.ids.begin(), encoding.ids.end());
    if (request.with_offsets()) {
      for (const auto& [begin, end] : encoding.offsets) {
        v1::ByteRange* range = response->add_offsets();
        range->set_begin_byte(begin);
        range->set_end_byte(end);
      }
    }
    if (request.with_segments() && encoding.segments.has_value()) {
      for (const std::string& segment : *encoding.segments) response->add_segments(segment);
    }
    response->set_fingerprint(tokenizer_->fingerprint());
    CountTokens("Tokenize", encoding.ids.size());
    return absl::OkStatus();
  }

  absl::Status DoDetokenize(const v1::DetokenizeRequest& request,
                            v1::DetokenizeResponse* response) {
    RETURN_IF_ERROR(CheckFingerprint(request.fingerprint()));
    for (int i = 0; i < request.ids_size(); ++i) {
      if (request.ids(i) >= 0) continue;
      return InvalidArgument("ids[{}] is {}, want at least 0", i, request.ids(i));
    }
    const std::vector<int32_t> ids(request.ids().begin(), request.ids().end());
    response->set_text(StreamDecoder::Decode(*tokenizer_->decoder_spec(), ids));
    response->set_fingerprint(tokenizer_->fingerprint());
    CountTokens("Detokenize", ids.size());
    return absl::OkStatus();
  }

  void CountTokens(const char* method, size_t count) {
    metrics_.tokens.Add({{"method", method}}).Increment(static_cast<double>(count));
  }

  // Runs `call` here: the work of a request is less than a hand-over for usual texts, and bounded
  // by kMaxTextBytes.
  template <typename Call>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, const char* method,
                                const Call& call) {
    const Clock::time_point start = Clock::now();
    const absl::Status status = call();
    const std::string request_id = RequestId(*context);
    if (!request_id.empty()) context->AddInitialMetadata("x-request-id", request_id);
    const std::string code = absl::StatusCodeToString(status.code());
    if (!status.ok()) {
      Log(LogLevel::kInfo, "request refused",
          {{"request_id", request_id},
           {"method", method},
           {"code", code},
           {"error", Message(status)}});
    }
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    metrics_.requests.Add({{"method", method}, {"code", code}}).Increment();
    metrics_.seconds.Add({{"method", method}}, LatencyBuckets()).Observe(elapsed.count());
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(status));
    return reactor;
  }

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const v1::DecoderSpec decoder_;
  Metrics metrics_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeTokenizerService(std::shared_ptr<const Tokenizer> tokenizer,
                                                    prometheus::Registry& registry) {
  return std::make_shared<Service>(std::move(tokenizer), registry);
}

}  // namespace hanlin
