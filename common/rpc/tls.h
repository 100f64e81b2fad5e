// PEM files of TLS: read, and checked before gRPC gets them, which accepts anything and then fails
// in each handshake without a word to the operator. Thread-safe: no state.
#ifndef HANLIN_COMMON_RPC_TLS_H_
#define HANLIN_COMMON_RPC_TLS_H_

#include <string>

#include "absl/status/statusor.h"

namespace hanlin {

// Certificates in PEM, at least one. NOT_FOUND for a missing file, INVALID_ARGUMENT for one that
// does not parse; both name it.
absl::StatusOr<std::string> ReadCertificates(const std::string& path);

// A certificate chain, the own certificate first, and its private key, unencrypted.
struct KeyPair {
  std::string certificate_chain;
  std::string private_key;
};
// As ReadCertificates; INVALID_ARGUMENT also for a key that is not the certificate's.
absl::StatusOr<KeyPair> ReadKeyPair(const std::string& certificate_path,
                                    const std::string& key_path);

}  // namespace hanlin

#endif  // HANLIN_COMMON_RPC_TLS_H_
