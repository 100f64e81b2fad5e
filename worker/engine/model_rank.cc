// See model_rank.h.
#include "worker/engine/model_rank.h"

#include <cstring>
#include <vector>

#include "common/host/host.h"
#include "common/io/data_dir.h"
#include "common/net/rendezvous.h"
#include "common/status/status.h"
#include "kernels/base/isa.h"
#include "model/checkpoint/checkpoint.h"
#include "model/comm/shared_memory.h"
#include "model/forward/tp_group.h"
#include "worker/engine/cpu_executor.h"
#include "worker/engine/memory_plan.h"

namespace hanlin {
namespace {

// Ranks read the same files at their own pace; none may take longer than this behind the others.
constexpr absl::Duration kLoadTimeout = absl::Minutes(30);

absl::StatusOr<std::string> DirectoryOf(const ModelSource& source) {
  if (!source.directory.empty()) return source.directory;
  return DefaultModelDirectory();
}

// What the ranks of a group have to agree on.
std::string Identity(const ModelConfig& config, ComputeType type) {
  return fmt::format("{} layers {} hidden {} heads {} ffn {} vocabulary {} context {} {} {}",
                     ToString(config.layout), config.num_layers, config.hidden_size,
                     config.num_heads, config.ffn_size, config.vocab_size, config.max_positions,
                     ToString(config.gelu), ToString(type));
}

}  // namespace

absl::StatusOr<ModelConfig> LoadConfig(const ModelSource& source) {
  if (!source.preset.empty()) {
    if (source.directory.empty()) return Preset(source.preset);
    return InvalidArgument("a model folder (\"{}\") and random weights (\"{}\"), want one of them",
                           source.directory, source.preset);
  }
  ASSIGN_OR_RETURN(const std::string directory, DirectoryOf(source));
  return LoadModelConfig(directory);
}

absl::StatusOr<ComputeType> ParseComputeType(std::string_view dtype, std::string_view device,
                                             bool scoring) {
  if (dtype == "fp32") return ComputeType::kFloat32;
  if (dtype == "bf16") return ComputeType::kBFloat16;
  if (dtype != "auto") return InvalidArgument("dtype is \"{}\", want auto, fp32 or bf16", dtype);
  if (device == "cuda") return ComputeType::kBFloat16;
  const bool has_bf16 = ActiveIsa() >= Isa::kAvx512Bf16;
  return has_bf16 && !scoring ? ComputeType::kBFloat16 : ComputeType::kFloat32;
}

std::string_view ToString(ComputeType type) {
  return type == ComputeType::kFloat32 ? "fp32" : "bf16";
}

absl::StatusOr<std::unique_ptr<ModelRank>> ModelRank::Create(Options options) {
  std::unique_ptr<ModelRank> rank(new ModelRank);
  ASSIGN_OR_RETURN(rank->config_, LoadConfig(options.source));
  rank->type_ = options.type;
  RETURN_IF_ERROR(CheckTp(rank->config_, options.tp));
  if (options.rank < 0 || options.rank >= options.tp) {
    return InvalidArgument("the rank is {}, want 0 to {}", options.rank, options.tp - 1);
  }
  const int threads =
      options.threads > 0 ? options.threads : std::max(1, AvailableCpus() / options.tp);
  rank->pool_ = std::make_unique<ThreadPool>(threads);
  if (options.device == "cuda" && options.tp > 1) {
    return Unimplemented("tensor parallelism over GPUs: the degree is {}, want 1", options.tp);
  }
  RETURN_IF_ERROR(rank->JoinGroup(options));
  if (options.device != "cuda") RETURN_IF_ERROR(rank->AgreeOnBlocks(options));
  RETURN_IF_ERROR(rank->Load(options));
  return rank;
}

absl::Status ModelRank::JoinGroup(const Options& options) {
  if (options.tp == 1) {
    communicator_ = MakeSingleRankCommunicator();
    return absl::OkStatus();
  }
  const RendezvousOptions rendezvous_options{.rank = options.rank,
                                             .size = options.tp,
                                             .identity = Identity(config_, type_),
                                             .progress = options.message};
  std::unique_ptr<Rendezvous> rendezvous;
  if (options.rank > 0) {
    ASSIGN_OR_RETURN(rendezvous, Rendezvous::Join(options.leader_address, rendezvous_options));
  } else if (options.listener.valid()) {
    ASSIGN_OR_RETURN(rendezvous, Rendezvous::Lead(options.listener, rendezvous_options));
  } else {
    ASSIGN_OR_RETURN(const FileDescriptor listener, ListenOn(options.leader_address));
    ASSIGN_OR_RETURN(rendezvous, Rendezvous::Lead(listener, rendezvous_options));
  }
  ASSIGN_OR_RETURN(communicator_, MakeSharedMemoryCommunicator(std::move(rendezvous)));
  return absl::OkStatus();
}

absl::Status ModelRank::AgreeOnBlocks(const Options& options) {
  std::vector<std::byte> message(sizeof(num_kv_blocks_));
  if (options.rank == 0) {
    ASSIGN_OR_RETURN(const uint64_t available, AvailableMemoryBytes());
    const absl::StatusOr<int32_t> blocks = PlanKvBlocks({.config = config_,
                                                         .type = type_,
                                                         .tp = options.tp,
                                                         .max_running = options.max_running,
                                                         .available_bytes = available,
                                                         .kv_bytes = options.kv_memory});
    if (!blocks.ok()) {
      communicator_->Abort(Message(blocks.status()));
      return blocks.status();
    }
    num_kv_blocks_ = *blocks;
    std::memcpy(message.data(), &num_kv_blocks_, sizeof(num_kv_blocks_));
  }
  RETURN_IF_ERROR(communicator_->Broadcast(&message, kLoadTimeout));
  if (message.size() != sizeof(num_kv_blocks_)) {
    return Internal("rank 0 sent {} bytes, want {}", message.size(), sizeof(num_kv_blocks_));
  }
  std::memcpy(&num_kv_blocks_, message.data(), sizeof(num_kv_blocks_));
  return absl::OkStatus();
}

absl::Status ModelRank::Load(const Options& options) {
  std::unique_ptr<Checkpoint> checkpoint;
  if (options.source.preset.empty()) {
    ASSIGN_OR_RETURN(const std::string directory, DirectoryOf(options.source));
    ASSIGN_OR_RETURN(checkpoint, Checkpoint::Open(directory, config_));
  } else {
    checkpoint = Checkpoint::Random(config_);
  }
  if (options.device == "cuda") {
    ASSIGN_OR_RETURN(cuda_, CudaRank::Create({.checkpoint = checkpoint.get(),
                                              .type = type_,
                                              .kv_memory = options.kv_memory,
                                              .max_running = options.max_running,
                                              .max_batch_tokens = options.max_batch_tokens,
                                              .batch_invariant = options.batch_invariant,
                                              .pool = pool_.get(),
                                              .progress = options.progress,
                                              .heartbeat = &heartbeat_}));
    num_kv_blocks_ = cuda_->num_kv_blocks();
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(model_, GptModel::Create({.checkpoint = checkpoint.get(),
                                             .compute_type = type_,
                                             .communicator = communicator_.get(),
                                             .pool = pool_.get(),
                                             .num_kv_blocks = num_kv_blocks_,
                                             .progress = options.progress,
                                             .heartbeat = &heartbeat_}));
  return communicator_->WaitForAll(kLoadTimeout);
}

std::unique_ptr<Executor> ModelRank::MakeExecutor() {
  if (cuda_ != nullptr) return cuda_->MakeExecutor();
  return std::make_unique<CpuExecutor>(model_.get(), communicator_.get(), pool_.get());
}

absl::Status ModelRank::Follow() { return FollowerLoop(model_.get(), communicator_.get()); }

std::optional<DeviceMetrics> ModelRank::device_metrics() const {
  if (cuda_ == nullptr) return std::nullopt;
  return cuda_->metrics();
}

}  // namespace hanlin
