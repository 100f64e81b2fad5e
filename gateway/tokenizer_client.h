// The tokenizer service as the gateway sees it: several stateless replicas, asked in turn, the next
// one when a replica is UNAVAILABLE. Every second each is asked for its fingerprint; the decoder
// spec is fetched once per fingerprint. Texts are never logged.
//
// Thread-safe. Nothing blocks: callbacks run on gRPC's threads (or in the call itself when no
// replica is there).
#ifndef HANLIN_GATEWAY_TOKENIZER_CLIENT_H_
#define HANLIN_GATEWAY_TOKENIZER_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tokenizer_svc/core/decoder_spec.h"

namespace hanlin {

// The tokenizer that is in use: its fingerprint and how its ids become text.
struct TokenizerIdentity {
  std::string fingerprint;
  std::shared_ptr<const DecoderSpec> spec;
};

class TokenizerClient : public std::enable_shared_from_this<TokenizerClient> {
 public:
  using EncodeCallback = std::function<void(absl::StatusOr<std::vector<int32_t>>)>;

  struct Tls {
    std::string ca;    // PEM file; empty = plaintext
    std::string name;  // in the replicas' certificates; empty = the host of the address
  };

  explicit TokenizerClient(Tls tls);
  ~TokenizerClient();

  // The replicas there are now.
  void SetAddresses(const std::vector<std::string>& addresses);
  // Asks the replicas how they are: called a few times a second.
  void Tick(absl::Time now);
  // From here on replicas are neither polled nor asked; calls under way end by their deadlines.
  void Close();

  // The ids that are fed to the model for `text`, by a replica with `fingerprint`. The callback
  // runs exactly once. UNAVAILABLE when no such replica answers.
  void Encode(const std::string& text, const std::string& request_id, std::string fingerprint,
              absl::Time deadline, EncodeCallback callback);

  // Null until a replica has answered.
  std::shared_ptr<const TokenizerIdentity> identity() const;
  // OK while at least one replica with the identity in use answers, else UNAVAILABLE saying why.
  absl::Status Reachable() const;

 private:
  struct Replica;  // Hides gRPC from this header.
  struct EncodeCall;

  void Poll(const std::shared_ptr<Replica>& replica) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnInfo(const std::shared_ptr<Replica>& replica, const absl::Status& status,
              const std::string& fingerprint);
  void Adopt() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FetchDecoder(const std::shared_ptr<Replica>& replica) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnDecoder(const std::string& fingerprint, absl::StatusOr<DecoderSpec> spec);
  std::shared_ptr<Replica> Next(const std::string& fingerprint)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TryEncode(const std::shared_ptr<EncodeCall>& call);

  const Tls tls_;
  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<Replica>> replicas_ ABSL_GUARDED_BY(mutex_);
  size_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
  bool fetching_decoder_ ABSL_GUARDED_BY(mutex_) = false;
  std::string decoder_failure_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const TokenizerIdentity> identity_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_TOKENIZER_CLIENT_H_
