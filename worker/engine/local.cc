// See local.h.
#include "worker/engine/local.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "absl/time/clock.h"
#include "common/host/host.h"
#include "common/io/data_dir.h"
#include "common/status/status.h"
#include "worker/engine/null_executor.h"

extern char** environ;

namespace hanlin {
namespace {

// KV blocks of the null device, which has no memory to run out of.
constexpr int32_t kNullBlocks = 1 << 16;
// For the other ranks to end after the leader said so.
constexpr absl::Duration kFollowerGrace = absl::Seconds(5);

absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& arguments) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, argv[0], nullptr, nullptr, argv.data(), environ);
  if (error != 0) return Internal("cannot start {}: {}", arguments[0], strerror(error));
  return pid;
}

// The other ranks of the group, as processes on this host.
class Followers {
 public:
  ~Followers() {
    const absl::Time deadline = absl::Now() + kFollowerGrace;
    for (const pid_t pid : pids_) {
      while (waitpid(pid, nullptr, WNOHANG) == 0) {
        if (absl::Now() > deadline) kill(pid, SIGKILL);
        absl::SleepFor(absl::Milliseconds(2));
      }
    }
  }

  absl::Status Start(const LocalModel::Options& options, ComputeType type,
                     const std::string& leader, int threads) {
    for (int rank = 1; rank < options.tp; ++rank) {
      std::vector<std::string> arguments = {BinaryDirectory() + "/hanlin-worker",
                                            "--rank",
                                            fmt::to_string(rank),
                                            "--tp",
                                            fmt::to_string(options.tp),
                                            "--leader",
                                            leader,
                                            "--dtype",
                                            std::string(ToString(type)),
                                            "--threads",
                                            fmt::to_string(threads),
                                            "--log-level",
                                            "error",
                                            "--parent-death"};
      if (!options.random_weights.empty()) {
        arguments.insert(arguments.end(), {"--random-weights", options.random_weights});
      } else if (!options.directory.empty()) {
        arguments.insert(arguments.end(), {"--model", options.directory});
      }
      ASSIGN_OR_RETURN(const pid_t pid, Spawn(arguments));
      pids_.push_back(pid);
    }
    return absl::OkStatus();
  }

 private:
  std::vector<pid_t> pids_;
};

}  // namespace

class LocalModel::Impl {
 public:
  absl::Status Start(Options options) {
    const ModelSource source{options.directory, options.random_weights};
    ASSIGN_OR_RETURN(config_, LoadConfig(source));
    ASSIGN_OR_RETURN(type_, ParseComputeType(options.dtype, options.device, options.scoring));
    RETURN_IF_ERROR(CheckTp(config_, options.tp));
    if (options.device == "null") return absl::OkStatus();
    if (options.device != "cpu" && options.device != "cuda") {
      return InvalidArgument("device is \"{}\", want cpu, cuda or null", options.device);
    }
    const int threads =
        options.threads > 0 ? options.threads : std::max(1, AvailableCpus() / options.tp);
    ModelRank::Options rank_options{.source = source,
                                    .device = options.device,
                                    .type = type_,
                                    .tp = options.tp,
                                    .kv_memory = options.kv_memory,
                                    .batch_invariant = options.batch_invariant,
                                    .threads = threads,
                                    .progress = options.progress,
                                    .message = options.message};
    if (options.tp > 1) {
      ASSIGN_OR_RETURN(rank_options.listener, ListenOn("127.0.0.1:0"));
      ASSIGN_OR_RETURN(const std::string leader, LocalAddress(rank_options.listener));
      RETURN_IF_ERROR(followers_.Start(options, type_, leader, threads));
    }
    ASSIGN_OR_RETURN(rank_, ModelRank::Create(std::move(rank_options)));
    executor_ = rank_->MakeExecutor();
    return absl::OkStatus();
  }

  ~Impl() {
    // Ends the engine's thread, and with it the group; an executor that never went to an engine
    // ends it here.
    engine_.reset();
    if (executor_ != nullptr) executor_->Shutdown();
  }

  absl::StatusOr<Engine*> engine() {
    if (engine_ != nullptr) return engine_.get();
    Engine::Options options{.config = config_, .num_kv_blocks = kNullBlocks};
    std::unique_ptr<Executor> executor;
    if (rank_ == nullptr) {
      executor = std::make_unique<NullExecutor>(NullExecutor::Options{.config = config_});
    } else {
      options.num_kv_blocks = rank_->num_kv_blocks();
      options.block_tokens = GptModel::block_tokens();
      options.heartbeat = rank_->heartbeat();
      if (rank_->device_metrics().has_value()) options.max_batch_tokens = kCudaBatchTokens;
      executor = std::move(executor_);
    }
    ASSIGN_OR_RETURN(engine_, Engine::Create(std::move(options), std::move(executor)));
    return engine_.get();
  }

  absl::StatusOr<std::vector<std::optional<double>>> Score(std::span<const int32_t> ids) {
    if (executor_ == nullptr) {
      return absl::FailedPreconditionError(rank_ == nullptr
                                               ? "the null device cannot score"
                                               : "the model generates, so it cannot score");
    }
    if (ids.empty() || ids.size() > static_cast<size_t>(config_.max_positions)) {
      return InvalidArgument("the text has {} tokens, want 1 to {} (the context)", ids.size(),
                             config_.max_positions);
    }
    const int64_t room = int64_t{rank_->num_kv_blocks()} * GptModel::block_tokens();
    if (static_cast<int64_t>(ids.size()) > room) {
      return ResourceExhausted("the text has {} tokens, want at most the {} of the KV cache",
                               ids.size(), room);
    }
    for (const int32_t id : ids) {
      if (id < 0 || id >= config_.vocab_size) {
        return InvalidArgument("ids holds the id {}, want ids in [0, {})", id, config_.vocab_size);
      }
    }
    return executor_->Score(ids);
  }

  const ModelConfig& config() const { return config_; }
  ComputeType type() const { return type_; }

 private:
  // Destroyed from the end: engine, executor, rank, then the processes are waited for.
  ModelConfig config_;
  ComputeType type_ = ComputeType::kFloat32;
  Followers followers_;
  std::unique_ptr<ModelRank> rank_;     // null for the null device
  std::unique_ptr<Executor> executor_;  // until the engine has it
  std::unique_ptr<Engine> engine_;
};

absl::StatusOr<std::unique_ptr<LocalModel>> LocalModel::Create(Options options) {
  auto impl = std::make_unique<Impl>();
  RETURN_IF_ERROR(impl->Start(std::move(options)));
  return std::unique_ptr<LocalModel>(new LocalModel(std::move(impl)));
}

LocalModel::LocalModel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LocalModel::~LocalModel() = default;
const ModelConfig& LocalModel::config() const { return impl_->config(); }
ComputeType LocalModel::compute_type() const { return impl_->type(); }
absl::StatusOr<Engine*> LocalModel::engine() { return impl_->engine(); }
absl::StatusOr<std::vector<std::optional<double>>> LocalModel::Score(std::span<const int32_t> ids) {
  return impl_->Score(ids);
}

}  // namespace hanlin
