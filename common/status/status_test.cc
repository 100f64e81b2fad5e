// Messages, annotation, and what the macros evaluate and return.
#include "common/status/status.h"

#include <memory>

#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using Code = absl::StatusCode;

TEST(StatusTest, ConstructorsFormatAndCarryTheirCode) {
  EXPECT_THAT(InvalidArgument("x is {}, want {}", 3, "4"),
              StatusIs(Code::kInvalidArgument, "x is 3, want 4"));
  EXPECT_THAT(DataLoss("{} bytes", 7), StatusIs(Code::kDataLoss, "7 bytes"));
  EXPECT_THAT(Cancelled("by {}", "x"), StatusIs(Code::kCancelled, "by x"));
}

TEST(AnnotateTest, KeepsCodeAndPayloadsAndLeavesSuccessAlone) {
  absl::Status status = Unavailable("full");
  status.SetPayload("type/retry", absl::Cord("5"));
  const absl::Status annotated = Annotate(status, "group 1");
  EXPECT_THAT(annotated, StatusIs(Code::kUnavailable, "group 1: full"));
  EXPECT_EQ(annotated.GetPayload("type/retry"), absl::Cord("5"));
  EXPECT_OK(Annotate(absl::OkStatus(), "group 1"));
}

absl::StatusOr<std::unique_ptr<int>> Make(bool good, int* calls) {
  ++*calls;
  if (!good) return NotFound("nothing");
  return std::make_unique<int>(7);
}

absl::StatusOr<int> Use(bool first, bool second, int* calls) {
  ASSIGN_OR_RETURN(std::unique_ptr<int> owned, Make(first, calls));
  RETURN_IF_ERROR(Make(second, calls).status());
  return *owned;
}

TEST(MacrosTest, AnErrorEndsTheFunctionAndEachExpressionRunsOnce) {
  int calls = 0;
  EXPECT_EQ(Use(true, true, &calls).value(), 7);
  EXPECT_EQ(calls, 2);
  EXPECT_THAT(Use(true, false, &calls), StatusIs(Code::kNotFound, "nothing"));
  EXPECT_EQ(calls, 4);
  EXPECT_THAT(Use(false, true, &calls), StatusIs(Code::kNotFound, "nothing"));
  EXPECT_EQ(calls, 5);
}

}  // namespace
}  // namespace hanlin
