// See ranks.h.
#include "trainer/parallel/ranks.h"

#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "common/io/sha256.h"
#include "common/net/rendezvous.h"
#include "common/status/status.h"
#include "model/comm/shared_memory.h"

namespace hanlin {
namespace {

absl::StatusOr<int> Integer(const GetEnvironment& get, const char* name, int unset, int min,
                            int max) {
  const auto text = get(name);
  if (!text.has_value()) return unset;
  int value = 0;
  const char* const end = text->data() + text->size();
  const auto result = std::from_chars(text->data(), end, value);
  if (result.ec != std::errc() || result.ptr != end || value < min || value > max) {
    return InvalidArgument("{} is '{}', want an integer in [{}, {}]", name, *text, min, max);
  }
  return value;
}

// A folder for the groups' sockets, made by rank 0 and told to all.
absl::StatusOr<std::string> SharedFolder(Rendezvous& world) {
  std::string folder;
  if (world.rank() == 0) {
    folder = (std::filesystem::temp_directory_path() / "hanlin-ranks-XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) return Unavailable("cannot make {}", folder);
  }
  RETURN_IF_ERROR(world.Broadcast(&folder));
  if (access(folder.c_str(), W_OK) != 0) {
    return FailedPrecondition("rank 0's folder {} is not here, want all ranks on one host", folder);
  }
  return folder;
}

absl::StatusOr<std::unique_ptr<Communicator>> JoinGroup(const std::string& address, int rank,
                                                        int size, absl::Duration timeout) {
  if (size == 1) return MakeSingleRankCommunicator();
  const RendezvousOptions options = {
      .rank = rank, .size = size, .identity = "training group", .timeout = timeout};
  std::unique_ptr<Rendezvous> rendezvous;
  if (rank == 0) {
    ASSIGN_OR_RETURN(const FileDescriptor listener, ListenOn(address));
    ASSIGN_OR_RETURN(rendezvous, Rendezvous::Lead(listener, options));
  } else {
    ASSIGN_OR_RETURN(rendezvous, Rendezvous::Join(address, options));
  }
  return MakeSharedMemoryCommunicator(std::move(rendezvous), timeout);
}

}  // namespace

absl::StatusOr<RankEnvironment> ReadRankEnvironment(const GetEnvironment& get) {
  RankEnvironment result;
  constexpr int kMax = 1 << 16;
  const bool has_rank = get("RANK").has_value(), has_world = get("WORLD_SIZE").has_value();
  if (!has_rank && !has_world) return result;
  if (!has_rank || !has_world) {
    return InvalidArgument("{} is set and {} is not, want both or neither",
                           has_rank ? "RANK" : "WORLD_SIZE", has_rank ? "WORLD_SIZE" : "RANK");
  }
  ASSIGN_OR_RETURN(result.world_size, Integer(get, "WORLD_SIZE", 1, 1, kMax));
  ASSIGN_OR_RETURN(result.rank, Integer(get, "RANK", 0, 0, result.world_size - 1));
  ASSIGN_OR_RETURN(result.local_world_size,
                   Integer(get, "LOCAL_WORLD_SIZE", result.world_size, 1, result.world_size));
  ASSIGN_OR_RETURN(result.local_rank,
                   Integer(get, "LOCAL_RANK", result.rank % result.local_world_size, 0,
                           result.local_world_size - 1));
  if (result.world_size == 1) return result;
  const auto address = get("MASTER_ADDR");
  if (!address.has_value() || !get("MASTER_PORT").has_value()) {
    return InvalidArgument("WORLD_SIZE is {}, want MASTER_ADDR and MASTER_PORT as well",
                           result.world_size);
  }
  ASSIGN_OR_RETURN(int port, Integer(get, "MASTER_PORT", 0, 1, 65534));
  // torchrun's agent listens on the port itself then.
  if (get("TORCHELASTIC_USE_AGENT_STORE") == "True") ++port;
  const bool ipv6 = address->find(':') != address->npos;
  result.master =
      ipv6 ? fmt::format("[{}]:{}", *address, port) : fmt::format("{}:{}", *address, port);
  return result;
}

absl::StatusOr<Ranks> JoinRanks(const RankEnvironment& environment, int tp,
                                const std::string& identity, absl::Duration timeout) {
  const int world_size = environment.world_size;
  if (world_size % tp != 0) {
    return InvalidArgument("parallel.tensor is {}, want a divisor of the {} ranks", tp, world_size);
  }
  Ranks ranks = {environment, nullptr, nullptr};
  if (world_size == 1) {
    ranks.tensor = MakeSingleRankCommunicator();
    ranks.data = MakeSingleRankCommunicator();
    return ranks;
  }
  const RendezvousOptions options = {.rank = environment.rank,
                                     .size = world_size,
                                     .identity = "recipe " + Sha256Hex(identity).substr(0, 16),
                                     .timeout = timeout};
  std::unique_ptr<Rendezvous> world;
  if (environment.rank == 0) {
    ASSIGN_OR_RETURN(const FileDescriptor listener, ListenOn(environment.master));
    ASSIGN_OR_RETURN(world, Rendezvous::Lead(listener, options));
  } else {
    ASSIGN_OR_RETURN(world, Rendezvous::Join(environment.master, options));
  }
  ASSIGN_OR_RETURN(const std::string folder, SharedFolder(*world));
  const auto remove = absl::MakeCleanup([&] {
    std::error_code ignored;
    if (environment.rank == 0) std::filesystem::remove_all(folder, ignored);
  });
  const int tensor_rank = environment.rank % tp, replica = environment.rank / tp;
  ASSIGN_OR_RETURN(ranks.tensor, JoinGroup(fmt::format("unix:{}/t{}", folder, replica), tensor_rank,
                                           tp, timeout));
  ASSIGN_OR_RETURN(ranks.data, JoinGroup(fmt::format("unix:{}/d{}", folder, tensor_rank), replica,
                                         world_size / tp, timeout));
  RETURN_IF_ERROR(world->Barrier());
  return ranks;
}

std::string DescribeGroup(const Ranks& ranks, bool tensor) {
  const int tp = ranks.tensor->size(), replica = ranks.environment.rank / tp;
  std::string members;
  for (int i = 0; i < (tensor ? tp : ranks.data->size()); ++i) {
    const int rank = tensor ? replica * tp + i : i * tp + ranks.tensor->rank();
    members += fmt::format("{}{}", i == 0 ? "" : ", ", rank);
  }
  return fmt::format("{}-parallel group of ranks {}", tensor ? "tensor" : "data", members);
}

}  // namespace hanlin
