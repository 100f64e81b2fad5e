// What `hanlin serve` starts for given options, and which options it refuses.
#include "cli/serve/plan.h"

#include <algorithm>

#include "common/testing/testing.h"

namespace hanlin::cli {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

const ServePlaces kPlaces{
    .binaries = "/b", .run_directory = "/run/x", .default_model = "/share/poet"};

// The value behind `flag`, or "(none)".
std::string Flag(const ProcessPlan& process, std::string_view flag) {
  const auto at = std::find(process.argv.begin(), process.argv.end(), flag);
  return at == process.argv.end() || at + 1 == process.argv.end() ? "(none)" : *(at + 1);
}

TEST(PlanServeTest, OneGroupTalksOverSocketsInTheRunDirectory) {
  ASSERT_OK_AND_ASSIGN(const auto units, PlanServe({.model = "/m"}, kPlaces));
  ASSERT_EQ(units.size(), 3u);
  const ProcessPlan& tokenizer = units[0].processes[0];
  const ProcessPlan& worker = units[1].processes[0];
  const ProcessPlan& gateway = units[2].processes[0];
  EXPECT_EQ(tokenizer.argv[0], "/b/hanlin-tokenizer");
  EXPECT_EQ(Flag(tokenizer, "--model"), "/m");
  EXPECT_EQ(Flag(worker, "--model"), "/m");
  EXPECT_EQ(Flag(worker, "--tp"), "(none)");
  EXPECT_EQ(Flag(gateway, "--tokenizer"), Flag(tokenizer, "--address"));
  EXPECT_EQ(Flag(gateway, "--workers"), Flag(worker, "--address"));
  EXPECT_EQ(Flag(worker, "--address"), "unix:/run/x/worker-0.sock");
  EXPECT_EQ(Flag(worker, "--metrics-address"), "(none)");
}

TEST(PlanServeTest, TheGatewayIsInFrontAndStopsFirstTheTokenizerLast) {
  ASSERT_OK_AND_ASSIGN(const auto units, PlanServe({.model = "/m", .groups = 2}, kPlaces));
  ASSERT_EQ(units.size(), 4u);
  for (const UnitPlan& unit : units) EXPECT_EQ(unit.is_front, unit.name == "gateway");
  EXPECT_LT(units[3].stop_phase, units[1].stop_phase);
  EXPECT_EQ(units[1].stop_phase, units[2].stop_phase);
  EXPECT_LT(units[2].stop_phase, units[0].stop_phase);
}

TEST(PlanServeTest, RanksOfAGroupShareARendezvousAndOnlyTheFirstServes) {
  ASSERT_OK_AND_ASSIGN(const auto units, PlanServe({.model = "/m", .tp = 2, .groups = 2}, kPlaces));
  const UnitPlan& group = units[2];
  ASSERT_EQ(group.processes.size(), 2u);
  EXPECT_EQ(Flag(group.processes[0], "--leader"), Flag(group.processes[1], "--leader"));
  EXPECT_NE(Flag(group.processes[0], "--leader"), Flag(units[1].processes[0], "--leader"));
  EXPECT_EQ(Flag(group.processes[1], "--rank"), "1");
  EXPECT_EQ(Flag(group.processes[1], "--address"), "(none)");
  EXPECT_EQ(Flag(units[3].processes[0], "--workers"),
            "unix:/run/x/worker-0.sock,unix:/run/x/worker-1.sock");
}

TEST(PlanServeTest, APresetHasRandomWeightsAndTheDefaultTokenizer) {
  ASSERT_OK_AND_ASSIGN(const auto units,
                       PlanServe({.model = "base", .random_weights = true}, kPlaces));
  EXPECT_EQ(Flag(units[0].processes[0], "--model"), "/share/poet");
  EXPECT_EQ(Flag(units[1].processes[0], "--random-weights"), "base");
  EXPECT_EQ(Flag(units[1].processes[0], "--model"), "(none)");
}

TEST(PlanServeTest, EveryProcessHasAMetricsPortOfItsOwn) {
  ASSERT_OK_AND_ASSIGN(
      const auto units,
      PlanServe({.model = "/m", .tp = 2, .groups = 2, .metrics_address = "0.0.0.0:9500"}, kPlaces));
  std::vector<std::string> addresses;
  for (const UnitPlan& unit : units) {
    for (const ProcessPlan& process : unit.processes)
      addresses.push_back(Flag(process, "--metrics-address"));
  }
  EXPECT_THAT(addresses, ::testing::ElementsAre("0.0.0.0:9501", "0.0.0.0:9502", "0.0.0.0:9503",
                                                "0.0.0.0:9504", "0.0.0.0:9505", "0.0.0.0:9500"));
}

TEST(PlanServeTest, LimitsAndTlsReachWhoNeedsThem) {
  ASSERT_OK_AND_ASSIGN(const auto units, PlanServe({.model = "/m",
                                                    .max_queue = 5,
                                                    .max_queue_tokens = 77,
                                                    .drain_timeout_seconds = 9,
                                                    .tls_cert = "c",
                                                    .tls_key = "k"},
                                                   kPlaces));
  EXPECT_EQ(Flag(units[1].processes[0], "--max-queue"), "5");
  EXPECT_EQ(Flag(units[2].processes[0], "--max-queue"), "5");
  EXPECT_EQ(Flag(units[2].processes[0], "--max-queue-tokens"), "77");
  EXPECT_EQ(Flag(units[2].processes[0], "--drain-timeout"), "9");
  EXPECT_EQ(Flag(units[2].processes[0], "--tls-cert"), "c");
  EXPECT_EQ(Flag(units[1].processes[0], "--tls-cert"), "(none)");
}

TEST(PlanServeTest, RefusesContradictionsByName) {
  const std::vector<std::pair<ServeOptions, std::string>> cases = {
      {{.tp = 0}, "--tp is 0"},
      {{.groups = 65}, "--groups is 65"},
      {{.threads = -1}, "--threads is -1"},
      {{.drain_timeout_seconds = -1}, "--drain-timeout is -1"},
      {{.tls_cert = "c"}, "--tls-key is missing"},
      {{.null_step_us = 5}, "--null-step-us needs --device null"},
      {{.tls_client_ca = "c"}, "--tls-client-ca needs"},
      {{.random_weights = true}, "--random-weights needs --model"},
      {{.metrics_address = "9500"}, "--metrics-address is \"9500\""},
      {{.metrics_address = "h:65535"}, "--metrics-address is \"h:65535\""},
      {{.metrics_address = "h:1x"}, "--metrics-address is \"h:1x\""},
      {{.metrics_address = "h:99999999999"}, "--metrics-address is \"h:99999999999\""},
      {{.tp = 65}, "--tp is 65"},
      {{.kv_memory = "lots"}, "--kv-memory is \"lots\""},
      {{.max_queue = 0}, "--max-queue is 0"},
      {{.max_queue_tokens = -1}, "--max-queue-tokens is -1"},
      {{.address = "nonsense"}, "--address is \"nonsense\""},
      {{.address = "h:65536"}, "--address is \"h:65536\""},
      {{.address = "unix:"}, "--address is \"unix:\""},
      {{.device = "cuda", .groups = 2}, "a GPU holds one rank"},
  };
  for (const auto& [options, message] : cases) {
    EXPECT_THAT(PlanServe(options, kPlaces),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  }
}

TEST(OffsetPortTest, PortZeroStaysZero) {
  EXPECT_EQ(OffsetPort("127.0.0.1:0", 3).value(), "127.0.0.1:0");
  EXPECT_EQ(OffsetPort("[::1]:80", 3).value(), "[::1]:83");
}

TEST(OffsetPortTest, APortBeyondTheLastIsRefused) {
  EXPECT_EQ(OffsetPort("h:65532", 3).value(), "h:65535");
  for (const char* address : {"h:65533", "h:2147483647", "h:-1", "h", "h:"}) {
    EXPECT_THAT(OffsetPort(address, 3),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(address)));
  }
}

}  // namespace
}  // namespace hanlin::cli
