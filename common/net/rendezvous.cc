// See rendezvous.h. The leader polls the listener, the connections that have not said hello yet and
// those that wait for the rest; a slow or silent stranger delays nobody.
#include "common/net/rendezvous.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "absl/time/clock.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr uint64_t kMagic = 0x31305a5652444e48;  // "HNDRVZ01"
constexpr size_t kMaxStrangers = 64;             // connections that have not said hello
constexpr absl::Duration kHelloTimeout = absl::Seconds(5);
constexpr absl::Duration kReplyTimeout = absl::Seconds(1);

struct HelloHeader {
  uint64_t magic;
  int32_t rank;
  int32_t size;
};

// A connection whose hello is still coming in.
struct Stranger {
  FileDescriptor socket;
  std::string bytes;
  absl::Time deadline;
};

class Gathering {
 public:
  Gathering(const FileDescriptor& listener, const RendezvousOptions& options)
      : listener_(listener), options_(options), joined_(options.size) {}

  absl::StatusOr<std::vector<FileDescriptor>> Run() {
    const absl::Time deadline = absl::Now() + options_.timeout;
    absl::Time next_report = absl::Now() + absl::Seconds(1);
    while (!Missing().empty()) {
      const absl::Time now = absl::Now();
      if (now >= deadline) {
        return DeadlineExceeded("{} did not join within {}{}", Missing(),
                                FormatSeconds(options_.timeout), last_refusal_);
      }
      if (now >= next_report && options_.progress) {
        options_.progress("waiting for " + Missing());
        next_report = now + absl::Seconds(1);
      }
      Poll(std::min(deadline - now, absl::Milliseconds(200)));
    }
    return std::move(joined_);
  }

 private:
  static std::string FormatSeconds(absl::Duration duration) {
    return fmt::format("{} s", absl::ToDoubleSeconds(duration));
  }

  // "ranks 2,3 of 4", empty when all are here.
  std::string Missing() const {
    std::string ranks;
    for (int rank = 1; rank < options_.size; ++rank) {
      if (!joined_[rank].valid()) fmt::format_to(std::back_inserter(ranks), ",{}", rank);
    }
    if (ranks.empty()) return "";
    return fmt::format("{} {} of {}", ranks.rfind(',') == 0 ? "rank" : "ranks", ranks.substr(1),
                       options_.size);
  }

  void Poll(absl::Duration wait) {
    std::vector<pollfd> entries;
    const bool accepting = strangers_.size() < kMaxStrangers;
    entries.push_back({accepting ? listener_.get() : -1, POLLIN, 0});
    for (const FileDescriptor& socket : joined_) entries.push_back({socket.get(), POLLIN, 0});
    for (const Stranger& stranger : strangers_) {
      entries.push_back({stranger.socket.get(), POLLIN, 0});
    }
    if (poll(entries.data(), entries.size(),
             static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1) < 0) {
      return;  // EINTR: the caller looks at the clock and comes back
    }
    for (int rank = 1; rank < options_.size; ++rank) {
      // A rank that waits has nothing to say: it died, and its successor may take the place.
      if (entries[1 + rank].revents != 0) joined_[rank] = FileDescriptor();
    }
    for (size_t i = 0; i < strangers_.size(); ++i) {
      const bool ready = entries[1 + options_.size + i].revents != 0;
      if ((ready && Listen(&strangers_[i])) || absl::Now() > strangers_[i].deadline) {
        strangers_[i].socket = FileDescriptor();
      }
    }
    std::erase_if(strangers_, [](const Stranger& s) { return !s.socket.valid(); });
    if (entries[0].revents != 0) Accept();
  }

  void Accept() {
    FileDescriptor socket(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) return;
    strangers_.push_back({std::move(socket), "", absl::Now() + kHelloTimeout});
  }

  // Reads what is there; true when this connection needs no more listening (answered, closed or
  // hostile).
  bool Listen(Stranger* stranger) {
    char buffer[4096];
    const ssize_t received = recv(stranger->socket.get(), buffer, sizeof(buffer), 0);
    if (received < 0) return errno != EAGAIN && errno != EINTR;
    if (received == 0) return true;
    stranger->bytes.append(buffer, received);
    uint32_t length = 0;
    if (stranger->bytes.size() < sizeof(length)) return false;
    std::memcpy(&length, stranger->bytes.data(), sizeof(length));
    if (length > kMaxFrameBytes) return true;
    if (stranger->bytes.size() < sizeof(length) + length) return false;
    const std::string_view bytes = stranger->bytes;
    Answer(stranger, bytes.substr(sizeof(length), length));
    return true;
  }

  void Answer(Stranger* stranger, std::string_view hello) {
    int rank = 0;
    const absl::Status verdict = Judge(hello, &rank);
    const uint32_t code = static_cast<uint32_t>(verdict.code());
    std::string reply(reinterpret_cast<const char*>(&code), sizeof(code));
    reply += Message(verdict);
    const absl::Status sent = SendFrame(stranger->socket, reply, absl::Now() + kReplyTimeout);
    if (!verdict.ok()) {
      last_refusal_ = "; refused: " + Message(verdict);
    } else if (sent.ok()) {
      joined_[rank] = std::move(stranger->socket);
    }
  }

  absl::Status Judge(std::string_view hello, int* rank) const {
    HelloHeader header;
    if (hello.size() < sizeof(header)) return InvalidArgument("not a hello of a Hanlin rank");
    std::memcpy(&header, hello.data(), sizeof(header));
    if (header.magic != kMagic) return InvalidArgument("not a hello of a Hanlin rank");
    if (header.size != options_.size) {
      return FailedPrecondition("rank {} was started for {} ranks, its leader for {}", header.rank,
                                header.size, options_.size);
    }
    if (header.rank < 1 || header.rank >= options_.size) {
      return InvalidArgument("rank {}, want 1 to {}", header.rank, options_.size - 1);
    }
    if (joined_[header.rank].valid()) {
      return FailedPrecondition("rank {} of {} is taken already", header.rank, options_.size);
    }
    const std::string_view identity = hello.substr(sizeof(header));
    if (identity != options_.identity) {
      return FailedPrecondition("rank {} has \"{}\", its leader \"{}\"", header.rank, identity,
                                options_.identity);
    }
    *rank = header.rank;
    return absl::OkStatus();
  }

  const FileDescriptor& listener_;
  const RendezvousOptions& options_;
  std::vector<FileDescriptor> joined_;  // by rank; [0] stays invalid
  std::vector<Stranger> strangers_;
  std::string last_refusal_;
};

absl::Status CheckOptions(const RendezvousOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return InvalidArgument("rank {} of {}, want one in [0, size)", options.rank, options.size);
  }
  if (options.identity.size() > kMaxFrameBytes / 2) {
    return InvalidArgument("identity of {} bytes, want at most {}", options.identity.size(),
                           kMaxFrameBytes / 2);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Rendezvous>> Rendezvous::Lead(const FileDescriptor& listener,
                                                             const RendezvousOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  if (options.rank != 0) return InvalidArgument("rank {} cannot lead, rank 0 does", options.rank);
  ASSIGN_OR_RETURN(std::vector<FileDescriptor> joined, Gathering(listener, options).Run());
  std::unique_ptr<Rendezvous> rendezvous(new Rendezvous(options));
  for (int rank = 1; rank < options.size; ++rank) {
    rendezvous->peers_.push_back({rank, std::move(joined[rank])});
  }
  return rendezvous;
}

absl::StatusOr<std::unique_ptr<Rendezvous>> Rendezvous::Join(const std::string& leader_address,
                                                             const RendezvousOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  if (options.rank == 0) return InvalidArgument("rank 0 leads, it cannot join");
  const absl::Time deadline = absl::Now() + options.timeout;
  if (options.progress) options.progress("waiting for the leader at " + leader_address);
  ASSIGN_OR_RETURN(FileDescriptor socket, ConnectTo(leader_address, deadline));
  const HelloHeader header = {kMagic, options.rank, options.size};
  std::string hello(reinterpret_cast<const char*>(&header), sizeof(header));
  RETURN_IF_ERROR(SendFrame(socket, hello + options.identity, deadline));
  const auto reply = ReceiveFrame(socket, deadline);
  if (!reply.ok()) return Annotate(reply.status(), "leader at " + leader_address);
  uint32_t code = 0;
  if (reply->size() < sizeof(code)) return Unavailable("{} is no Hanlin leader", leader_address);
  std::memcpy(&code, reply->data(), sizeof(code));
  if (code != 0) {
    return absl::Status(
        static_cast<absl::StatusCode>(code),
        fmt::format("leader at {}: {}", leader_address, reply->substr(sizeof(code))));
  }
  std::unique_ptr<Rendezvous> rendezvous(new Rendezvous(options));
  rendezvous->peers_.push_back({0, std::move(socket)});
  return rendezvous;
}

absl::Status Rendezvous::Broadcast(std::string* text) {
  const absl::Time deadline = absl::Now() + options_.timeout;
  for (const Peer& peer : peers_) {
    if (rank() == 0) {
      const absl::Status sent = SendFrame(peer.socket, *text, deadline);
      if (!sent.ok()) return Annotate(sent, fmt::format("rank {}", peer.rank));
      continue;
    }
    auto received = ReceiveFrame(peer.socket, deadline);
    if (!received.ok()) return Annotate(received.status(), "rank 0");
    *text = *std::move(received);
  }
  return absl::OkStatus();
}

absl::Status Rendezvous::Barrier() {
  const absl::Time deadline = absl::Now() + options_.timeout;
  const auto send = [&](const Peer& peer) { return SendFrame(peer.socket, "barrier", deadline); };
  const auto receive = [&](const Peer& peer) {
    return ReceiveFrame(peer.socket, deadline).status();
  };
  const auto with_all = [&](const auto& operation) -> absl::Status {
    for (const Peer& peer : peers_) {
      const absl::Status status = operation(peer);
      if (!status.ok()) return Annotate(status, fmt::format("rank {}", peer.rank));
    }
    return absl::OkStatus();
  };
  // Followers report first, then hear that all are there.
  RETURN_IF_ERROR(rank() == 0 ? with_all(receive) : with_all(send));
  return rank() == 0 ? with_all(send) : with_all(receive);
}

}  // namespace hanlin
