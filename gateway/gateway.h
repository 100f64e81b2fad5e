// The gateway as one object: tokenizer client, worker groups, admission, service and server, put
// together and taken apart in the right order. Thread-safe after Create.
#ifndef HANLIN_GATEWAY_GATEWAY_H_
#define HANLIN_GATEWAY_GATEWAY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/server.h"
#include "gateway/admission.h"
#include "gateway/group_health.h"
#include "gateway/tokenizer_client.h"

namespace prometheus {
class Registry;
}

namespace hanlin {

class Gateway {
 public:
  struct Options {
    std::string address;    // HOST:PORT (port 0 picks one) or unix:PATH
    std::string workers;    // endpoint list, see endpoints.h
    std::string tokenizer;  // endpoint list
    std::string model;      // model that worker groups must serve; empty = that of the first one
    Admission::Options admission;
    GroupHealth::Options health;
    // Between two look-ups of DNS names.
    absl::Duration resolve_interval = absl::Seconds(3);
    TlsFiles tls;
    TokenizerClient::Tls tokenizer_tls;
    absl::Duration max_connection_age = absl::ZeroDuration();
    prometheus::Registry* registry = nullptr;  // Outlives the gateway.
  };
  // Listens; it serves as soon as a worker group and a tokenizer are there.
  static absl::StatusOr<std::unique_ptr<Gateway>> Create(const Options& options);
  // Ends what still runs.
  ~Gateway();

  const std::string& address() const;
  // OK when a request could be served now, else what is missing.
  absl::Status Serving() const;
  // NOT_SERVING, refuses new calls, waits for running ones until `timeout` is over, then cancels
  // them. True when all had ended by themselves.
  bool Drain(absl::Duration timeout);

 private:
  struct Parts;

  explicit Gateway(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_GATEWAY_H_
