// Look-ups against a name server of a few lines on the loopback, and against the hosts file.
#include "common/net/dns.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "common/net/socket.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;

// Answers questions for A records; other types have none.
class NameServer {
 public:
  enum class Mode { kAnswer, kNoSuchName, kSilent, kGarbage };

  NameServer(std::vector<std::string> addresses, Mode mode)
      : addresses_(std::move(addresses)), mode_(mode), socket_(socket(AF_INET, SOCK_DGRAM, 0)) {
    sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    EXPECT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    socklen_t size = sizeof(address);
    getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] { Serve(); });
  }
  ~NameServer() {
    stop_ = true;
    thread_.join();
  }
  const std::string& address() const { return address_; }

 private:
  void Serve() {
    while (!stop_) {
      pollfd entry = {socket_.get(), POLLIN, 0};
      if (poll(&entry, 1, 10) != 1) continue;
      char buffer[512];
      sockaddr_in peer = {};
      socklen_t size = sizeof(peer);
      const ssize_t count = recvfrom(socket_.get(), buffer, sizeof(buffer), 0,
                                     reinterpret_cast<sockaddr*>(&peer), &size);
      if (count < 12 || mode_ == Mode::kSilent) continue;
      const std::string answer = Answer(std::string(buffer, count));
      sendto(socket_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&peer),
             size);
    }
  }

  std::string Answer(const std::string& question) const {
    if (mode_ == Mode::kGarbage) return question.substr(0, 2) + "\x81\x80 nonsense";
    const size_t end = question.find('\0', 12) + 5;  // name, type, class
    const bool is_a = question[end - 3] == 1;
    const bool found = mode_ == Mode::kAnswer;
    std::string answer = question.substr(0, 2) + "\x81" + (found ? '\x80' : '\x83');
    const char count = is_a && found ? static_cast<char>(addresses_.size()) : 0;
    answer += std::string("\0\1\0", 3) + count + std::string(4, '\0');
    answer += question.substr(12, end - 12);
    for (int i = 0; i < count; ++i) {
      answer += std::string("\xc0\x0c\0\1\0\1\0\0\0\0\0\4", 12);  // that name, A, IN, TTL 0
      in_addr address = {};
      inet_pton(AF_INET, addresses_[i].c_str(), &address);
      answer += std::string(reinterpret_cast<const char*>(&address), sizeof(address));
    }
    return answer;
  }

  const std::vector<std::string> addresses_;
  const Mode mode_;
  FileDescriptor socket_;
  std::string address_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

TEST(DnsTest, AllAddressesOfANameComeFromTheServerThatIsNamed) {
  const NameServer server({"127.0.0.2", "127.0.0.3", "10.1.2.3"}, NameServer::Mode::kAnswer);
  ASSERT_OK_AND_ASSIGN(const auto addresses,
                       ResolveName("workers.hanlin", 7002, server.address(), Soon()));
  EXPECT_THAT(addresses, UnorderedElementsAre("127.0.0.2:7002", "127.0.0.3:7002", "10.1.2.3:7002"));
}

TEST(DnsTest, ANameThatDoesNotExistOrHasNoAddressIsUnavailable) {
  const NameServer none({}, NameServer::Mode::kNoSuchName);
  EXPECT_THAT(ResolveName("workers.hanlin", 1, none.address(), Soon()),
              StatusIs(Code::kUnavailable, HasSubstr("workers.hanlin")));
  const NameServer empty({}, NameServer::Mode::kAnswer);
  EXPECT_THAT(ResolveName("workers.hanlin", 1, empty.address(), Soon()),
              StatusIs(Code::kUnavailable, HasSubstr("workers.hanlin")));
}

TEST(DnsTest, ASilentServerCostsNoMoreThanTheDeadline) {
  const NameServer silent({}, NameServer::Mode::kSilent);
  const absl::Time start = absl::Now();
  EXPECT_THAT(ResolveName("workers.hanlin", 1, silent.address(), start + absl::Milliseconds(300)),
              StatusIs(Code::kUnavailable, HasSubstr("no answer in time")));
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

TEST(DnsTest, GarbageIsNoAnswer) {
  const NameServer garbage({}, NameServer::Mode::kGarbage);
  EXPECT_THAT(ResolveName("workers.hanlin", 1, garbage.address(), absl::Now() + absl::Seconds(3)),
              StatusIs(Code::kUnavailable, HasSubstr("workers.hanlin")));
}

TEST(DnsTest, WithoutAServerTheHostsFileCounts) {
  ASSERT_OK_AND_ASSIGN(const auto addresses, ResolveName("localhost", 7000, "", Soon()));
  EXPECT_THAT(addresses, Contains("127.0.0.1:7000"));
}

TEST(DnsTest, ANumberIsItsOwnAddress) {
  ASSERT_OK_AND_ASSIGN(const auto addresses, ResolveName("127.0.0.9", 5, "", Soon()));
  EXPECT_THAT(addresses, UnorderedElementsAre("127.0.0.9:5"));
}

TEST(DnsTest, AMalformedServerIsNamed) {
  EXPECT_THAT(ResolveName("x", 1, "not-an-ip", Soon()),
              StatusIs(Code::kInvalidArgument, HasSubstr("not-an-ip")));
}

}  // namespace
}  // namespace hanlin
