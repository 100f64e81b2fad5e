// See rpc_context.h.
#include "gateway/rpc_context.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>

#include "absl/random/random.h"
#include "common/obs/log.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr size_t kMaxRequestIdBytes = 128;

std::string MakeRequestId() {
  thread_local absl::BitGen generator;
  return fmt::format("{:016x}{:016x}", absl::Uniform<uint64_t>(generator),
                     absl::Uniform<uint64_t>(generator));
}

// -1 for what has not happened.
double Seconds(absl::Duration duration) {
  return duration == absl::InfiniteDuration() ? -1 : absl::ToDoubleSeconds(duration);
}

}  // namespace

bool IsValidRequestId(std::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c <= '~'; });
}

RpcContext::RpcContext(std::string_view method, GatewayMetrics* metrics,
                       grpc::CallbackServerContext* context)
    : method_(method), metrics_(metrics), arrival_(absl::Now()), deadline_(absl::InfiniteFuture()) {
  const auto given = context->client_metadata().find(kRequestIdKey);
  if (given != context->client_metadata().end()) {
    const std::string_view id(given->second.data(), given->second.size());
    if (IsValidRequestId(id)) request_id_ = id;
  }
  if (request_id_.empty()) request_id_ = MakeRequestId();
  context->AddInitialMetadata(kRequestIdKey, request_id_);
  const auto deadline = context->deadline();
  if (deadline != std::chrono::system_clock::time_point::max()) {
    deadline_ = absl::FromChrono(deadline);
  }
}

absl::Status RpcContext::CancelReason() const {
  if (absl::Now() >= deadline_) return DeadlineExceeded("the call's deadline passed");
  return Cancelled("the client cancelled the call");
}

void RpcContext::Finish(const absl::Status& status, const GenerationCall::Figures& figures) const {
  metrics_->CountRequest(method_, status.code());
  Log(LogLevel::kInfo, "request finished",
      {{"request_id", request_id_},
       {"method", method_},
       {"code", CodeName(status.code())},
       {"reason", Message(status)},
       {"prompt_tokens", figures.prompt_tokens},
       {"completion_tokens", figures.completion_tokens},
       {"ttft_seconds", Seconds(figures.first_token_time - arrival_)},
       {"total_seconds", Seconds(absl::Now() - arrival_)}});
}

}  // namespace hanlin
