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

TEST(ParseFlagsTest, AnUnknownCommandIsNamedWithTheNearest) {
  for (const auto& [words, message] :
       std::initializer_list<std::pair<std::vector<const char*>, const char*>>{
           {{"prog", "sirve"},
            "prog: there is no command \"sirve\" (do you mean \"serve\"?), want one of serve, "
            "bench "
            "(see --help)\n"},
           {{"prog", "bench", "fly", "--fast"},
            "prog: there is no command \"fly\", want one of load (see --help)\n"},
           {{"prog", "bench"}, "prog: A subcommand is required (see --help)\n"}}) {
    CLI::App app("x", "prog");
    app.require_subcommand(1);
    app.add_subcommand("serve");
    CLI::App* bench = app.add_subcommand("bench");
    bench->require_subcommand(1);
    bench->add_subcommand("load");
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(ParseFlags(app, static_cast<int>(words.size()), words.data()), kExitUsage);
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), message);
  }
}

TEST(FlagChecksTest, WhatIsWrongIsNamed) {
  for (const char* text : {"1", "0.5", "1e9"}) EXPECT_EQ(PositiveNumber(text), "") << text;
  for (const char* text : {"0", "-1", "x", "", "nan", "inf", "1s"}) {
    EXPECT_EQ(PositiveNumber(text), fmt::format("is \"{}\", want a number above 0", text));
  }
  EXPECT_EQ(NonNegativeNumber("0"), "");
  EXPECT_EQ(NonNegativeNumber("-1"), "is \"-1\", want a number of at least 0");
  EXPECT_EQ(NonNegativeNumber("x"), "is \"x\", want a number of at least 0");
  EXPECT_EQ(ServerAddress("h:1"), "");
  EXPECT_EQ(ServerAddress("h"), "is \"h\", want HOST:PORT, unix:PATH or dns:///NAME:PORT");
}

TEST(ReportErrorTest, UsersMistakesExitTwoOthersOne) {
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(ReportError("prog", absl::InvalidArgumentError("bad x")), kExitUsage);
  EXPECT_EQ(ReportError("prog", absl::UnavailableError("gone")), kExitFailure);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "prog: bad x\nprog: gone\n");
}

}  // namespace
}  // namespace hanlin
