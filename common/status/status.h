// Errors as values. Every fallible call of Hanlin returns absl::Status or absl::StatusOr; a message
// says what was wrong, the value seen and the value wanted. Constructors here take fmt format
// strings:
//   return InvalidArgument("top_p is {}, want a number in (0, 1]", top_p);
// Thread-safe: no state.
#ifndef HANLIN_COMMON_STATUS_STATUS_H_
#define HANLIN_COMMON_STATUS_STATUS_H_

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanlin {

// The bad value came from the caller of the API or the command line.
template <typename... Args>
absl::Status InvalidArgument(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InvalidArgumentError(fmt::format(format, std::forward<Args>(args)...));
}
// The state of the system does not allow it: a fingerprint of another tokenizer, an option the
// model lacks.
template <typename... Args>
absl::Status FailedPrecondition(fmt::format_string<Args...> format, Args&&... args) {
  return absl::FailedPreconditionError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status NotFound(fmt::format_string<Args...> format, Args&&... args) {
  return absl::NotFoundError(fmt::format(format, std::forward<Args>(args)...));
}
// A file that is damaged, truncated or lies about its contents.
template <typename... Args>
absl::Status DataLoss(fmt::format_string<Args...> format, Args&&... args) {
  return absl::DataLossError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status ResourceExhausted(fmt::format_string<Args...> format, Args&&... args) {
  return absl::ResourceExhaustedError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Unavailable(fmt::format_string<Args...> format, Args&&... args) {
  return absl::UnavailableError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Unimplemented(fmt::format_string<Args...> format, Args&&... args) {
  return absl::UnimplementedError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Internal(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InternalError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status DeadlineExceeded(fmt::format_string<Args...> format, Args&&... args) {
  return absl::DeadlineExceededError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Cancelled(fmt::format_string<Args...> format, Args&&... args) {
  return absl::CancelledError(fmt::format(format, std::forward<Args>(args)...));
}

// The same error, its message led by `context` ("config.json: …").
absl::Status Annotate(const absl::Status& status, std::string_view context);

// absl's string_view is a type of its own in Debian's build; formatting wants the standard one.
inline std::string Message(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

}  // namespace hanlin

#define HANLIN_CONCAT_INNER_(a, b) a##b
#define HANLIN_CONCAT_(a, b) HANLIN_CONCAT_INNER_(a, b)

// Returns from the enclosing function when `expression` is not OK.
#define RETURN_IF_ERROR(expression)                                           \
  do {                                                                        \
    if (::absl::Status hanlin_status_ = (expression); !hanlin_status_.ok()) { \
      return hanlin_status_;                                                  \
    }                                                                         \
  } while (false)

// ASSIGN_OR_RETURN(auto x, MakeX()): unwraps a StatusOr or returns its error.
#define ASSIGN_OR_RETURN(lhs, expression) \
  ASSIGN_OR_RETURN_IMPL_(HANLIN_CONCAT_(hanlin_status_or_, __LINE__), lhs, expression)
#define ASSIGN_OR_RETURN_IMPL_(temporary, lhs, expression) \
  auto temporary = (expression);                           \
  if (!temporary.ok()) return temporary.status();          \
  lhs = std::move(temporary).value()

#endif  // HANLIN_COMMON_STATUS_STATUS_H_
