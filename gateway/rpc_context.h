// What every generating RPC does around its work: takes over or makes the request id, knows its
// deadline, counts itself and writes its one log line (never text) at the end. Not thread-safe.
#ifndef HANLIN_GATEWAY_RPC_CONTEXT_H_
#define HANLIN_GATEWAY_RPC_CONTEXT_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gateway/call.h"
#include "gateway/metrics.h"

namespace grpc {
class CallbackServerContext;
}

namespace hanlin {

// True for 1 to 128 printable ASCII characters without blanks.
bool IsValidRequestId(std::string_view id);

class RpcContext {
 public:
  // Reads the call's metadata and puts x-request-id into its initial metadata.
  RpcContext(std::string_view method, GatewayMetrics* metrics,
             grpc::CallbackServerContext* context);

  const std::string& request_id() const { return request_id_; }
  absl::Time arrival() const { return arrival_; }
  absl::Time deadline() const { return deadline_; }
  // Why the call ends now that gRPC says it is cancelled: its deadline, or its client.
  absl::Status CancelReason() const;
  // Counts and logs.
  void Finish(const absl::Status& status, const GenerationCall::Figures& figures) const;

 private:
  std::string_view method_;
  GatewayMetrics* metrics_;
  std::string request_id_;
  absl::Time arrival_;
  absl::Time deadline_;
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_RPC_CONTEXT_H_
