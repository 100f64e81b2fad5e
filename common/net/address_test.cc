// Which addresses flags may hold, and how others are refused.
#include "common/net/address.h"

#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

TEST(AddressTest, PortsAreNumbersBehindAHost) {
  EXPECT_EQ(PortOf("127.0.0.1:8080"), 8080);
  EXPECT_EQ(PortOf("[::1]:0"), 0);
  EXPECT_EQ(PortOf("name:65535"), 65535);
  for (const char* address :
       {"", "h", ":80", "h:", "h:-1", "h:65536", "h:99999999999", "h:8x", "h: 8", "h:+8"}) {
    EXPECT_EQ(PortOf(address), -1) << address;
  }
}

TEST(AddressTest, AServerListensOnAPortOrASocketFile) {
  for (const std::string& address :
       {std::string("h:0"), std::string("unix:/x"), "unix:" + std::string(107, 'x')}) {
    EXPECT_OK(CheckListenAddress("--address", address)) << address;
  }
  for (const std::string& address : {std::string("h"), std::string(":80"), std::string("unix:"),
                                     "unix:" + std::string(108, 'x')}) {
    EXPECT_THAT(
        CheckListenAddress("--address", address),
        StatusIs(absl::StatusCode::kInvalidArgument,
                 HasSubstr("--address is \"" + address + "\", want HOST:PORT or unix:PATH")));
  }
}

TEST(AddressTest, AClientCallsAPortASocketFileOrAName) {
  for (const char* address : {"h:1", "[::1]:80", "unix:/x", "dns:///name:1", "dns://s:53/name:1"}) {
    EXPECT_TRUE(IsServerAddress(address)) << address;
  }
  for (const char* address : {"", "h", "h:0", "h:65536", "unix:", "dns://", "dns:///",
                              "dns:///name", "dns://name:1", "dns://s/name:1", "http://h"}) {
    EXPECT_FALSE(IsServerAddress(address)) << address;
  }
}

}  // namespace
}  // namespace hanlin
