// See testing.h.
#include "model/forward/testing.h"

#include <algorithm>
#include <numeric>

#include "common/testing/testing.h"
#include "model/comm/testing.h"
#include "model/forward/model.h"
#ifdef HANLIN_CUDA
#include "model/comm/nccl/nccl_communicator.h"
#include "model/forward/cuda/cuda_model.h"
#endif

#ifndef HANLIN_CUDA
namespace hanlin {
class CudaCommunicator {};
}  // namespace hanlin
#endif

namespace hanlin::testing {

StepDriver::StepDriver(TpGroup* group, const ForwardModel& model, uint32_t seed)
    : group_(*group),
      vocab_size_(model.config().vocab_size),
      block_tokens_(model.limits().block_tokens),
      random_(seed) {
  free_blocks_.resize(model.limits().num_blocks);
  std::iota(free_blocks_.begin(), free_blocks_.end(), 0);
  std::shuffle(free_blocks_.begin(), free_blocks_.end(), random_);
}

std::vector<float> StepDriver::Step(const std::vector<Work>& works) {
  Ids tokens, block_table, logit_rows;
  std::vector<StepSequence> plan;
  for (const Work& work : works) {
    Sequence& sequence = sequences_[work.sequence];
    const int32_t first = static_cast<int32_t>(tokens.size());
    const int32_t count = static_cast<int32_t>(work.tokens.size());
    tokens.insert(tokens.end(), work.tokens.begin(), work.tokens.end());
    for (int32_t i = work.all_logits ? 0 : count - 1; i < count; ++i)
      logit_rows.push_back(first + i);
    while (std::ssize(sequence.blocks) * block_tokens_ < sequence.tokens + count) {
      sequence.blocks.push_back(free_blocks_.back());
      free_blocks_.pop_back();
    }
    plan.push_back({first, count, sequence.tokens, static_cast<int32_t>(block_table.size()),
                    static_cast<int32_t>(sequence.blocks.size())});
    block_table.insert(block_table.end(), sequence.blocks.begin(), sequence.blocks.end());
    sequence.tokens += count;
  }
  std::vector<float> logits(logit_rows.size() * vocab_size_);
  const absl::Status status = group_.RunStep({tokens, plan, block_table, logit_rows}, logits);
  EXPECT_TRUE(status.ok()) << status;
  return logits;
}

void StepDriver::Drop(int sequence) {
  const Ids& blocks = sequences_[sequence].blocks;
  free_blocks_.insert(free_blocks_.end(), blocks.begin(), blocks.end());
  std::shuffle(free_blocks_.begin(), free_blocks_.end(), random_);
  sequences_.erase(sequence);
}

std::string WhyNot(const GroupOptions& options) {
  if (options.device == Device::kCpu) return "";
#ifdef HANLIN_CUDA
  const auto found = OpenCudaDevice(0);
  if (!found.ok()) return Message(found.status());
  const absl::Status mode = CheckBatchInvariance(*found, options.batch_invariant);
  if (!mode.ok()) return Message(mode);
  if (options.device == Device::kCuda) return "";
  return Message(MakeNcclCommunicator({}).status());
#else
  return "built without CUDA";
#endif
}

namespace {

absl::StatusOr<std::unique_ptr<ForwardModel>> MakeModel(const Checkpoint& checkpoint,
                                                        const GroupOptions& options,
                                                        Communicator* communicator,
                                                        [[maybe_unused]] CudaCommunicator* nccl,
                                                        ThreadPool* pool) {
#ifdef HANLIN_CUDA
  if (options.device != Device::kCpu) {
    return CudaGptModel::Create({.checkpoint = &checkpoint,
                                 .compute_type = options.type,
                                 .communicator = nccl,
                                 .pool = pool,
                                 .num_kv_blocks = options.num_kv_blocks,
                                 .max_tokens_per_pass = options.max_tokens_per_pass,
                                 .batch_invariant = options.batch_invariant});
  }
#endif
  return GptModel::Create({.checkpoint = &checkpoint,
                           .compute_type = options.type,
                           .communicator = communicator,
                           .pool = pool,
                           .num_kv_blocks = options.num_kv_blocks,
                           .max_tokens_per_pass = options.max_tokens_per_pass});
}

}  // namespace

void WithGroup(const std::string& directory, const GroupOptions& options,
               const std::function<void(TpGroup&, const ForwardModel&)>& body) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(directory));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(directory, config));
  RunRanks(options.tp_size, [&](Communicator& communicator) {
    ThreadPool pool(options.threads);
    std::unique_ptr<CudaCommunicator> nccl;
#ifdef HANLIN_CUDA
    if (options.device == Device::kCudaSharded) {
      ASSERT_OK_AND_ASSIGN(nccl, MakeNcclCommunicator({}));
    }
#endif
    const auto model = MakeModel(*checkpoint, options, &communicator, nccl.get(), &pool);
    if (!model.ok()) communicator.Abort("this rank could not load");
    ASSERT_TRUE(model.ok()) << model.status();
    if (communicator.rank() != 0) {
      EXPECT_OK(FollowerLoop(model->get(), &communicator));
      return;
    }
    TpGroup group(model->get(), &communicator);
    body(group, **model);
    EXPECT_OK(group.Shutdown());
  });
}

std::vector<Ids> Greedy(StepDriver* driver, const std::vector<Ids>& prompts,
                        const std::vector<int>& lengths, const Ids& end_ids) {
  std::vector<Ids> sequences = prompts;
  std::vector<size_t> fed(prompts.size(), 0);
  const auto running = [&](size_t i) {
    const Ids& ids = sequences[i];
    const bool ended =
        ids.size() > prompts[i].size() && std::ranges::count(end_ids, ids.back()) > 0;
    return !ended && std::ssize(ids) < lengths[i];
  };
  for (;;) {
    std::vector<StepDriver::Work> works;
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (running(i))
        works.push_back({static_cast<int>(i), std::span(sequences[i]).subspan(fed[i])});
    }
    if (works.empty()) break;
    const std::vector<float> logits = driver->Step(works);
    for (size_t w = 0; w < works.size(); ++w) {
      const auto row = std::span(logits).subspan(w * driver->vocab_size(), driver->vocab_size());
      Ids& ids = sequences[works[w].sequence];
      fed[works[w].sequence] = ids.size();
      ids.push_back(static_cast<int32_t>(std::ranges::max_element(row) - row.begin()));
    }
  }
  for (size_t i = 0; i < sequences.size(); ++i) driver->Drop(static_cast<int>(i));
  return sequences;
}

}  // namespace hanlin::testing
