// SHA-256 (FIPS 180-4, by OpenSSL) as lower-case hexadecimal, for fingerprints of tokenizer and
// model files.
#ifndef HANLIN_COMMON_IO_SHA256_H_
#define HANLIN_COMMON_IO_SHA256_H_

#include <string>
#include <string_view>

namespace hanlin {

std::string Sha256Hex(std::string_view bytes);

}  // namespace hanlin

#endif  // HANLIN_COMMON_IO_SHA256_H_
