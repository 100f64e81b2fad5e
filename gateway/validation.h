// Everything about a public request that can be checked without the model: ranges, sizes, UTF-8,
// contradictions. What depends on context or vocabulary is checked by the worker, which knows them.
// Errors: INVALID_ARGUMENT naming field, value seen and value wanted; UNIMPLEMENTED for the fields
// of NotImplemented(). Thread-safe: no state.
#ifndef HANLIN_GATEWAY_VALIDATION_H_
#define HANLIN_GATEWAY_VALIDATION_H_

#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "hanlin/v1/text_generation.pb.h"

namespace hanlin {

// Limits of the public API, as its proto documents them.
inline constexpr int kMaxPrompts = 256;
inline constexpr int kMaxStopStrings = 16;
inline constexpr size_t kMaxStopStringBytes = 256;
inline constexpr int kMaxStopIds = 64;
inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxLogitBiases = 4096;

// Names of request fields that answer UNIMPLEMENTED, as GetModelInfo lists them.
std::span<const std::string_view> NotImplemented();

absl::Status Validate(const v1::StreamGenerateRequest& request);
absl::Status Validate(const v1::GenerateRequest& request);

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_VALIDATION_H_
