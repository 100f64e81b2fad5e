// Sizes, environment variables, exit codes.
#include "common/flags/flags.h"

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ParseSizeTest, ReadsUnits) {
  for (const auto& [text, bytes] :
       std::initializer_list<std::pair<const char*, uint64_t>>{{"0", 0},
                                                               {"1048576", 1048576},
                                                               {"512MiB", 512ull << 20},
                                                               {"1.5g", 3ull << 29},
                                                               {"4GB", 4'000'000'000},
                                                               {"2k", 2048},
                                                               {"7b", 7},
                                                               {"1TiB", 1ull << 40}}) {
    EXPECT_EQ(ParseSize("--size", text).value(), bytes) << text;
  }
}

TEST(ParseSizeTest, RefusesNonsenseByName) {
  for (const char* text : {"", "x", "-1", "1X", "1GiBs", "nan", "1e30", "1 G"}) {
    EXPECT_THAT(ParseSize("--size", text), StatusIs(absl::StatusCode::kInvalidArgument,
                                                    HasSubstr(fmt::format("\"{}\"", text))));
  }
}

TEST(ParseFlagsTest, EnvironmentSetsAFlagAndTheCommandLineWins) {
  setenv("HANLIN_SOME_NUMBER", "5", 1);
  int number = 1;
  const char* with[] = {"prog", "--some-number", "7"};
  for (const int count : {1, 3}) {
    CLI::App app("x", "prog");
    app.add_option("--some-number", number);
    EXPECT_FALSE(ParseFlags(app, count, with).has_value());
    EXPECT_EQ(number, count == 1 ? 5 : 7);
  }
  unsetenv("HANLIN_SOME_NUMBER");
}

TEST(ParseFlagsTest, UnknownFlagIsNamedAndExitsTwo) {
  CLI::App app("x", "prog");
  const char* args[] = {"prog", "--no-such-flag"};
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(ParseFlags(app, 2, args), kExitUsage);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("--no-such-flag"));
}

TEST(ReportErrorTest, UsersMistakesExitTwoOthersOne) {
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(ReportError("prog", absl::InvalidArgumentError("bad x")), kExitUsage);
  EXPECT_EQ(ReportError("prog", absl::UnavailableError("gone")), kExitFailure);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "prog: bad x\nprog: gone\n");
}

}  // namespace
}  // namespace hanlin
