// The one mapping between absl::Status and grpc::Status, and the retry hint that travels with
// RESOURCE_EXHAUSTED as google.rpc.RetryInfo in the grpc-status-details-bin trailer. Thread-safe:
// no state.
#ifndef HANLIN_COMMON_RPC_STATUS_H_
#define HANLIN_COMMON_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace hanlin {

// Attaches the time after which the caller may try again.
absl::Status WithRetryAfter(absl::Status status, absl::Duration delay);
// The hint attached by WithRetryAfter or received from a peer.
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

// A retry hint becomes google.rpc.RetryInfo.
grpc::Status ToGrpc(const absl::Status& status);
// google.rpc.RetryInfo in the details becomes a retry hint.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace hanlin

#endif  // HANLIN_COMMON_RPC_STATUS_H_
