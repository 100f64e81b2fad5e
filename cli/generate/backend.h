// Who continues a prompt for `hanlin generate`: the engine in this process or a server. Both take
// the public API's request and give its pieces, so everything before and behind them is shared.
#ifndef HANLIN_CLI_GENERATE_BACKEND_H_
#define HANLIN_CLI_GENERATE_BACKEND_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/model/model_flags.h"
#include "hanlin/v1/text_generation.pb.h"

namespace hanlin::cli {

// Thread-safe: several requests may run side by side.
class Backend {
 public:
  using OnPiece = std::function<void(const v1::StreamGenerateResponse& piece)>;
  virtual ~Backend() = default;

  // Runs one request to its end, pieces as they come. CANCELLED after CancelAll.
  virtual absl::Status Generate(const v1::StreamGenerateRequest& request,
                                const OnPiece& on_piece) = 0;

  // Ends all requests, present and future ones.
  virtual void CancelAll() = 0;
};

// Loads model and tokenizer into this process.
absl::StatusOr<std::unique_ptr<Backend>> MakeLocalBackend(const ModelFlags& flags);

struct RemoteOptions {
  std::string target;          // HOST:PORT, unix:PATH or dns:///NAME:PORT
  std::string ca_certificate;  // PEM file; empty = plaintext
  absl::Duration timeout;      // of a request
};
absl::StatusOr<std::unique_ptr<Backend>> MakeRemoteBackend(const RemoteOptions& options);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_GENERATE_BACKEND_H_
