// The processes of a run: who they are (the environment that torchrun, srun with a wrapper, mpirun
// or `hanlin launch` set), how they find each other, and the two groups each belongs to. Rank r is
// tensor rank r % tp of replica r / tp.
//
// All ranks meet at MASTER_ADDR:MASTER_PORT (one port further when torchrun's own store holds that
// one), compare what they were started with, and then form their groups in shared memory, which
// keeps them to one host.
#ifndef HANLIN_TRAINER_PARALLEL_RANKS_H_
#define HANLIN_TRAINER_PARALLEL_RANKS_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/comm/communicator.h"

namespace hanlin {

struct RankEnvironment {
  int rank = 0;
  int world_size = 1;
  int local_world_size = 1;
  std::string master;  // HOST:PORT; unused by a world of one
  int local_rank = 0;  // among the ranks of this host
};

// Reads RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT,
// TORCHELASTIC_USE_AGENT_STORE through `get` (std::getenv in a program). Without RANK and
// WORLD_SIZE: alone. INVALID_ARGUMENT names the variable.
using GetEnvironment = std::function<std::optional<std::string>(const char* name)>;
absl::StatusOr<RankEnvironment> ReadRankEnvironment(const GetEnvironment& get);

struct Ranks {
  RankEnvironment environment;
  std::unique_ptr<Communicator> tensor, data;  // groups of one included
};

// Forms the groups. `identity` must be the same on all ranks (the recipe): a difference is an error
// that shows both. INVALID_ARGUMENT: tp does not divide the world.
absl::StatusOr<Ranks> JoinRanks(const RankEnvironment& environment, int tp,
                                const std::string& identity, absl::Duration timeout);

// "tensor-parallel group of ranks 2, 3" for the errors of a group.
std::string DescribeGroup(const Ranks& ranks, bool tensor);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_PARALLEL_RANKS_H_
