// Sockets with deadlines: peers that are silent, slow, gone or lie about a length; bad addresses.
#include "common/net/socket.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "absl/time/clock.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
using Code = absl::StatusCode;

// Two ends of a connection, as ListenOn and ConnectTo make them: non-blocking.
std::pair<FileDescriptor, FileDescriptor> Connection() {
  int fds[2] = {-1, -1};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  return {FileDescriptor(fds[0]), FileDescriptor(fds[1])};
}

absl::Time Soon() { return absl::Now() + absl::Milliseconds(30); }
absl::Time Later() { return absl::Now() + absl::Seconds(10); }

TEST(FrameTest, ArrivesWholeUpToTheLargest) {
  const auto [a, b] = Connection();
  for (const std::string& bytes : {std::string(), std::string("\0x", 2), std::string(5000, 'x')}) {
    ASSERT_OK(SendFrame(a, bytes, Later()));
    EXPECT_EQ(ReceiveFrame(b, Later()).value(), bytes);
  }
}

TEST(FrameTest, ATooLongOneIsRefusedOnBothSides) {
  const auto [a, b] = Connection();
  EXPECT_THAT(SendFrame(a, std::string(kMaxFrameBytes + 1, 'x'), Later()),
              StatusIs(Code::kInvalidArgument, HasSubstr("frame of 65537 bytes")));
  ASSERT_OK(SendAll(a, "\xff\xff\xff\xff", Later()));
  EXPECT_THAT(ReceiveFrame(b, Later()),
              StatusIs(Code::kInvalidArgument, HasSubstr("frame of 4294967295 bytes")));
}

TEST(SocketTest, ASilentPeerCostsNoMoreThanTheDeadline) {
  const auto [a, b] = Connection();
  ASSERT_OK(SendAll(a, "abc", Later()));
  char bytes[10];
  EXPECT_THAT(ReceiveAll(b, bytes, sizeof(bytes), Soon()),
              StatusIs(Code::kDeadlineExceeded, HasSubstr("silent, 7 bytes missing")));
}

TEST(SocketTest, APeerThatDoesNotReadCostsNoMoreThanTheDeadline) {
  const auto [a, b] = Connection();
  EXPECT_THAT(SendAll(a, std::string(8 << 20, 'x'), Soon()),
              StatusIs(Code::kDeadlineExceeded, HasSubstr("does not read")));
}

TEST(SocketTest, APeerThatIsGoneIsUnavailableAndKillsNobody) {
  auto [a, b] = Connection();
  ASSERT_OK(SendAll(b, "ab", Later()));
  { const FileDescriptor closed = std::move(b); }
  char bytes[4];
  EXPECT_THAT(ReceiveAll(a, bytes, sizeof(bytes), Later()),
              StatusIs(Code::kUnavailable, HasSubstr("closed the connection, 2 bytes missing")));
  EXPECT_THAT(SendAll(a, "x", Later()), StatusIs(Code::kUnavailable, HasSubstr("gone")));
}

TEST(SocketTest, NobodyListeningEndsAtTheDeadline) {
  EXPECT_THAT(ConnectTo("unix:/nonexistent/socket", absl::Now() + absl::Milliseconds(50)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("/nonexistent/socket")));
}

TEST(SocketTest, BadAddressesAreRefused) {
  EXPECT_THAT(ListenOn("no-port"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no-port")));
  EXPECT_THAT(ListenOn("unix:" + std::string(200, 'x')),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("200 bytes")));
}

TEST(SocketTest, PortInUseIsNamed) {
  ASSERT_OK_AND_ASSIGN(const FileDescriptor first, ListenOn("127.0.0.1:0"));
  ASSERT_OK_AND_ASSIGN(const std::string address, LocalAddress(first));
  EXPECT_THAT(ListenOn(address),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(address)));
}

}  // namespace
}  // namespace hanlin
