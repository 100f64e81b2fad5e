// For tests of the forward pass: a tensor-parallel group on threads of this process, a driver that
// keeps block tables as the scheduler would, and greedy decoding over both.
#ifndef HANLIN_MODEL_FORWARD_TESTING_H_
#define HANLIN_MODEL_FORWARD_TESTING_H_

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/types.h"
#include "model/checkpoint/checkpoint.h"
#include "model/forward/forward_model.h"
#include "model/forward/tp_group.h"

namespace hanlin::testing {

using Ids = std::vector<int32_t>;

enum class Device {
  kCpu,
  kCuda,
  kCudaSharded,  // the code of tensor parallelism over NCCL, at one rank
};

struct GroupOptions {
  Device device = Device::kCpu;
  ComputeType type = ComputeType::kFloat32;
  int tp_size = 1;
  int threads = 1;
  int32_t max_tokens_per_pass = 512;
  int32_t num_kv_blocks = 512;
  bool batch_invariant = true;  // the CPU always is
};

// Why tests of such a group cannot run here; empty when they can.
std::string WhyNot(const GroupOptions& options);

// Feeds tokens to sequences of its own numbering. KV blocks are handed out in random order, so that
// a result that depends on block numbers shows.
class StepDriver {
 public:
  StepDriver(TpGroup* group, const ForwardModel& model, uint32_t seed);

  struct Work {
    int sequence;  // any number; new ones begin empty
    std::span<const int32_t> tokens;
    bool all_logits = false;  // of every token, else of the last one
  };
  // One step. Logits of the works' rows, one after another.
  std::vector<float> Step(const std::vector<Work>& works);
  // Gives the sequence's blocks back.
  void Drop(int sequence);

  int vocab_size() const { return vocab_size_; }

 private:
  struct Sequence {
    int32_t tokens = 0;
    Ids blocks;
  };

  TpGroup& group_;
  const int32_t vocab_size_;
  const int32_t block_tokens_;
  std::mt19937 random_;
  Ids free_blocks_;
  std::map<int, Sequence> sequences_;
};

// Loads `directory` on every rank of a group (on a GPU: of one) and calls `body` on rank 0; the
// others follow until it returns.
void WithGroup(const std::string& directory, const GroupOptions& options,
               const std::function<void(TpGroup&, const ForwardModel&)>& body);

// Continues every prompt greedily, all of them in one running batch, until its total length is
// `lengths[i]` or it has made one of `end_ids` (which is kept). Prompt plus continuation.
std::vector<Ids> Greedy(StepDriver* driver, const std::vector<Ids>& prompts,
                        const std::vector<int>& lengths, const Ids& end_ids = {});

}  // namespace hanlin::testing

#endif  // HANLIN_MODEL_FORWARD_TESTING_H_
