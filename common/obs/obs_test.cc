// Logs keep a line a line; metrics are served and a port in use is an error.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "common/obs/log.h"
#include "common/obs/metrics.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

std::string HttpGet(const std::string& address) {
  const int port = std::atoi(address.c_str() + address.rfind(':') + 1);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  std::string body;
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
    if (write(fd, request.data(), request.size()) > 0) {
      char buffer[4096];
      for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) body.append(buffer, n);
    }
  }
  close(fd);
  return body;
}

TEST(LogTest, JsonLinesAreOneLineWithTypedFields) {
  ASSERT_OK(SetupLogging({.process = "test", .level = "info", .format = "json"}));
  ::testing::internal::CaptureStderr();
  Log(LogLevel::kInfo, "happened", {{"text", "a\nb\xff"}, {"count", 3}, {"yes", true}, {"x", 0.5}});
  Log(LogLevel::kDebug, "below the level");
  const std::string out = ::testing::internal::GetCapturedStderr();
  ASSERT_EQ(std::count(out.begin(), out.end(), '\n'), 1) << out;
  const auto line = nlohmann::json::parse(out, nullptr, false);
  ASSERT_TRUE(line.is_object()) << out;
  EXPECT_EQ(line["event"], "happened");
  EXPECT_EQ(line["process"], "test");
  EXPECT_EQ(line["count"], 3);
  EXPECT_EQ(line["yes"], true);
}

TEST(LogTest, TextValuesWithBlanksAreQuoted) {
  ASSERT_OK(SetupLogging({.process = "test"}));
  ::testing::internal::CaptureStderr();
  Log(LogLevel::kWarning, "event", {{"value", "a b\nc"}});
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(R"(value="a b\nc")"));
}

TEST(LogTest, UnknownLevelOrFormatIsNamed) {
  EXPECT_THAT(SetupLogging({.level = "loud"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("loud")));
  EXPECT_THAT(SetupLogging({.format = "xml"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("xml")));
}

TEST(MetricsTest, ServesRegisteredAndProcessMetrics) {
  ASSERT_OK_AND_ASSIGN(auto server, MetricsServer::Create("127.0.0.1:0"));
  auto& family = prometheus::BuildCounter().Name("things_total").Register(server->registry());
  family.Add({}).Increment(7);
  const std::string page = HttpGet(server->address());
  EXPECT_THAT(page, HasSubstr("things_total 7"));
  EXPECT_THAT(page, HasSubstr("process_open_fds"));
}

TEST(MetricsTest, BadAddressAndPortInUseAreErrors) {
  EXPECT_THAT(MetricsServer::Create("nowhere"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("nowhere")));
  ASSERT_OK_AND_ASSIGN(auto first, MetricsServer::Create("127.0.0.1:0"));
  EXPECT_THAT(MetricsServer::Create(first->address()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(first->address())));
}

}  // namespace
}  // namespace hanlin
