// See tls.h.
#include "common/rpc/tls.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <utility>

#include "common/io/file.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr uint64_t kMaxPemBytes = 1 << 20;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free_all)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

// OpenSSL would free its state in an exit handler, while a thread of gRPC may be in a handshake and
// crash. Whatever makes TLS credentials reads a PEM file first, so this comes before gRPC's own
// use.
void LeaveOpenSslAtExit() {
  [[maybe_unused]] static const int initialised =
      OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr);
}

Bio Open(const std::string& text) {
  LeaveOpenSslAtExit();
  return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free_all};
}

// Answers OpenSSL's question for a pass phrase, which would go to the terminal.
int NoPassPhrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

absl::StatusOr<Certificate> ParseFirst(const std::string& text, const std::string& path) {
  const Bio bio = Open(text);
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free);
  ERR_clear_error();
  if (certificate == nullptr) {
    return InvalidArgument("{} holds no certificate, want one in PEM", path);
  }
  return certificate;
}

absl::StatusOr<PrivateKey> ParseKey(const std::string& text, const std::string& path) {
  const Bio bio = Open(text);
  bool encrypted = false;
  PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &NoPassPhrase, &encrypted),
                 &EVP_PKEY_free);
  ERR_clear_error();
  if (encrypted) return InvalidArgument("the private key {} is encrypted, want a plain one", path);
  if (key == nullptr) return InvalidArgument("{} holds no private key, want one in PEM", path);
  return key;
}

}  // namespace

absl::StatusOr<std::string> ReadCertificates(const std::string& path) {
  ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMaxPemBytes));
  RETURN_IF_ERROR(ParseFirst(text, path).status());
  return text;
}

absl::StatusOr<KeyPair> ReadKeyPair(const std::string& certificate_path,
                                    const std::string& key_path) {
  if (certificate_path.empty() || key_path.empty()) {
    return InvalidArgument("TLS wants both a certificate and a private key, got only \"{}{}\"",
                           certificate_path, key_path);
  }
  KeyPair pair;
  ASSIGN_OR_RETURN(pair.certificate_chain, ReadFile(certificate_path, kMaxPemBytes));
  ASSIGN_OR_RETURN(pair.private_key, ReadFile(key_path, kMaxPemBytes));
  ASSIGN_OR_RETURN(const Certificate certificate,
                   ParseFirst(pair.certificate_chain, certificate_path));
  ASSIGN_OR_RETURN(const PrivateKey key, ParseKey(pair.private_key, key_path));
  const bool matches = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!matches) {
    return InvalidArgument("the private key {} does not belong to the certificate {}", key_path,
                           certificate_path);
  }
  return pair;
}

}  // namespace hanlin
