// What the tests of every folder share: status matchers, a temporary folder, the golden data,
// random text.
#ifndef HANLIN_COMMON_TESTING_TESTING_H_
#define HANLIN_COMMON_TESTING_TESTING_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/status/status.h"

namespace hanlin::testing {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& status) {
  return status.status();
}

// EXPECT_THAT(Load(path), StatusIs(absl::StatusCode::kNotFound, HasSubstr("config.json")));
MATCHER_P2(StatusIs, code, message, "") {
  const absl::Status& status = GetStatus(arg);
  *result_listener << "whose status is " << status.ToString();
  return status.code() == code &&
         ::testing::ExplainMatchResult(message, Message(status), result_listener);
}

#define EXPECT_OK(expression)                                \
  EXPECT_TRUE(::hanlin::testing::GetStatus(expression).ok()) \
      << ::hanlin::testing::GetStatus(expression)
#define ASSERT_OK(expression)                                             \
  do {                                                                    \
    const auto hanlin_status_ = ::hanlin::testing::GetStatus(expression); \
    ASSERT_TRUE(hanlin_status_.ok()) << hanlin_status_;                   \
  } while (false)
#define ASSERT_OK_AND_ASSIGN(lhs, expression) \
  ASSERT_OK_AND_ASSIGN_IMPL_(HANLIN_CONCAT_(hanlin_status_or_, __LINE__), lhs, expression)
#define ASSERT_OK_AND_ASSIGN_IMPL_(temporary, lhs, expression) \
  auto temporary = (expression);                               \
  ASSERT_TRUE(temporary.ok()) << temporary.status();           \
  lhs = std::move(temporary).value()

// A folder that is removed with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::string& path() const { return path_; }
  // Writes `contents` to path()/name, making folders as needed; returns the full path.
  std::string Write(const std::string& name, std::string_view contents) const;

 private:
  std::string path_;
};

// The root of the golden data: $HANLIN_GOLDENS, else the copy that the build unpacked.
std::string GoldensDirectory();

// Every folder under GoldensDirectory()/`kind` (at any depth) that holds expected.json: full paths,
// sorted.
std::vector<std::string> GoldenCases(const std::string& kind);

}  // namespace hanlin::testing

#endif  // HANLIN_COMMON_TESTING_TESTING_H_
