// hanlin-worker: one rank of a worker group. Rank 0 leads: engine, gRPC service, metrics; the
// others run what it sends. Prints "ready ADDRESS" on stdout once it serves. SIGTERM drains: new
// requests are refused, running ones may finish; a second one ends the process at once. A group
// that lost a rank, or stands still, exits with 1, for the supervisor to start it again as one.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <thread>
#include <tuple>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/flags/environment.h"
#include "common/flags/flags.h"
#include "common/host/service_notifier.h"
#include "common/net/address.h"
#include "common/net/socket.h"
#include "common/obs/log.h"
#include "common/obs/metrics.h"
#include "common/rpc/server.h"
#include "common/rpc/shutdown.h"
#include "common/status/status.h"
#include "worker/engine/model_rank.h"
#include "worker/engine/null_executor.h"
#include "worker/host_ranks.h"
#include "worker/service/metrics.h"
#include "worker/service/router_metrics.h"
#include "worker/service/worker_service.h"

namespace hanlin {
namespace {

// KV blocks of the null device, which has no memory to run out of.
constexpr int32_t kNullBlocks = 1 << 16;
// For the last messages to reach the gateways.
constexpr absl::Duration kFlushTime = absl::Milliseconds(500);
constexpr absl::Duration kSignalInterval = absl::Milliseconds(50);
constexpr absl::Duration kProgressInterval = absl::Seconds(2);

struct Flags {
  ModelSource source;
  std::string model_name;
  std::string device = "cpu";
  std::string dtype = "auto";
  int rank = 0;
  int tp = 1;
  int host_ranks = 1;
  std::string leader;
  std::string address = "127.0.0.1:8090";
  std::string metrics_address;
  std::string kv_memory;
  int max_queue = 1024;
  int64_t max_queue_tokens = 1 << 20;
  int max_batch_tokens = 0;
  int max_running = 256;
  int threads = 0;
  std::string tokenizer_fingerprint;
  int drain_timeout_seconds = 30;
  int stall_timeout_seconds = 30;
  int64_t null_step_us = 0;
  bool batch_invariant = false;
  bool parent_death = false;
  LogOptions log;
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.source.directory, "model folder [the default model]");
  app.add_option(
      "--random-weights", flags.source.preset,
      "random weights in the shape of a preset (base, large, 1.3B, …) in place of --model");
  app.add_option("--model-name", flags.model_name, "name in GetWorkerInfo [the folder's name]");
  app.add_option("--device", flags.device, "cpu, cuda, or null: ids by formula, no weights")
      ->capture_default_str();
  app.add_option("--dtype", flags.dtype, "auto, fp32 or bf16")->capture_default_str();
  app.add_option("--rank", flags.rank, "rank of this process, 0 leads")->capture_default_str();
  app.add_option("--tp", flags.tp, "ranks in the group")->capture_default_str();
  app.add_option("--host-ranks", flags.host_ranks,
                 "ranks that this command starts on this host; --rank then counts hosts")
      ->capture_default_str();
  app.add_option("--leader", flags.leader, "where rank 0 meets the others: HOST:PORT or unix:PATH");
  app.add_option("--address", flags.address, "gRPC address, HOST:PORT or unix:PATH")
      ->capture_default_str();
  app.add_option("--metrics-address", flags.metrics_address, "HOST:PORT of /metrics [none]");
  app.add_option("--kv-memory", flags.kv_memory,
                 "KV cache of the group, e.g. 4GiB [half of the memory that the weights leave]");
  app.add_option("--max-queue", flags.max_queue, "requests that may wait")->capture_default_str();
  app.add_option("--max-queue-tokens", flags.max_queue_tokens, "prompt tokens that may wait")
      ->capture_default_str();
  app.add_option("--max-batch-tokens", flags.max_batch_tokens,
                 "tokens of one step [256, on a GPU 512]");
  app.add_option("--max-running", flags.max_running, "sequences in the KV cache at once")
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "threads of this rank [processors / tp]");
  app.add_option("--tokenizer-fingerprint", flags.tokenizer_fingerprint,
                 "SHA-256 of the tokenizer's files [the first one seen]");
  app.add_option("--drain-timeout", flags.drain_timeout_seconds,
                 "seconds that running requests have after SIGTERM")
      ->capture_default_str();
  app.add_option("--stall-timeout", flags.stall_timeout_seconds,
                 "seconds without progress after which the group counts as dead")
      ->capture_default_str();
  app.add_option("--null-step-us", flags.null_step_us,
                 "microseconds that a step of the null device takes")
      ->capture_default_str();
  app.add_flag("--batch-invariant", flags.batch_invariant,
               "on a GPU: ids do not depend on what else runs, at some cost in speed");
  app.add_flag("--parent-death", flags.parent_death, "end when the parent process dies");
  AddLogFlags(app, flags.log);
}

absl::Status CheckFlags(const Flags& flags) {
  if (flags.device != "cpu" && flags.device != "cuda" && flags.device != "null") {
    return InvalidArgument("--device is \"{}\", want cpu, cuda or null", flags.device);
  }
  if (flags.tp < 1) return InvalidArgument("--tp is {}, want at least 1", flags.tp);
  if (flags.rank < 0 || flags.rank >= flags.tp) {
    return InvalidArgument("--rank is {}, want 0 to {} (--tp is {})", flags.rank, flags.tp - 1,
                           flags.tp);
  }
  if (flags.tp > 1 && flags.device == "null") {
    return InvalidArgument("--tp is {}, want 1 with --device null", flags.tp);
  }
  if (flags.tp > 1 && flags.leader.empty()) {
    return InvalidArgument("--tp is {}, want --leader with it", flags.tp);
  }
  if (flags.tp > 1) RETURN_IF_ERROR(CheckListenAddress("--leader", flags.leader));
  if (flags.threads < 0) return InvalidArgument("--threads is {}, want at least 0", flags.threads);
  for (const auto& [name, value, least] :
       {std::tuple{"--max-queue", int64_t{flags.max_queue}, 1},
        {"--max-queue-tokens", flags.max_queue_tokens, 1},
        {"--max-running", int64_t{flags.max_running}, 1},
        {"--max-batch-tokens", int64_t{flags.max_batch_tokens}, 0}}) {
    if (value < least) return InvalidArgument("{} is {}, want at least {}", name, value, least);
  }
  const std::string& fingerprint = flags.tokenizer_fingerprint;
  if (!fingerprint.empty() &&
      (fingerprint.size() != 64 ||
       fingerprint.find_first_not_of("0123456789abcdef") != fingerprint.npos)) {
    return InvalidArgument("--tokenizer-fingerprint is \"{}\", want 64 hexadecimal digits",
                           fingerprint);
  }
  if (flags.drain_timeout_seconds < 0) {
    return InvalidArgument("--drain-timeout is {}, want at least 0", flags.drain_timeout_seconds);
  }
  if (flags.stall_timeout_seconds < 1) {
    return InvalidArgument("--stall-timeout is {}, want at least 1", flags.stall_timeout_seconds);
  }
  if (flags.null_step_us < 0) {
    return InvalidArgument("--null-step-us is {}, want at least 0", flags.null_step_us);
  }
  return absl::OkStatus();
}

class Worker {
 public:
  Worker(Flags flags, ShutdownSignal* shutdown) : flags_(std::move(flags)), shutdown_(*shutdown) {}

  absl::Status Run() {
    RETURN_IF_ERROR(CheckFlags(flags_));
    if (!flags_.kv_memory.empty()) {
      ASSIGN_OR_RETURN(kv_bytes_, ParseSize("--kv-memory", flags_.kv_memory));
    }
    ASSIGN_OR_RETURN(type_, ParseComputeType(flags_.dtype, flags_.device, /*scoring=*/false));
    ASSIGN_OR_RETURN(metrics_server_, MetricsServer::Create(flags_.metrics_address));
    RETURN_IF_ERROR(CheckAddressIsFree());
    if (flags_.device != "null") RETURN_IF_ERROR(LoadRank());
    if (flags_.rank > 0) {
      // SIGTERM alone does not end a follower: it works on while rank 0 drains, and ends with the
      // group.
      notifier_.emplace();
      return rank_->Follow();
    }
    RETURN_IF_ERROR(StartEngine());
    RETURN_IF_ERROR(Serve());
    shutdown_.Wait();
    return engine_->health().ok() ? Drain() : Abandon();
  }

 private:
  // An occupied port is said now, not after minutes of loading. (A stale socket file is replaced.)
  absl::Status CheckAddressIsFree() const {
    if (flags_.rank > 0 || flags_.address.starts_with("unix:")) return absl::OkStatus();
    return ListenOn(flags_.address).status();
  }

  absl::Status LoadRank() {
    // Nothing runs yet that would have to be finished: a signal ends the process at once, also
    // while it waits for other ranks.
    absl::Notification loaded;
    std::jthread watcher([&] {
      while (!loaded.WaitForNotificationWithTimeout(kSignalInterval)) {
        if (shutdown_.Requested()) std::_Exit(kExitOk);
      }
    });
    absl::Status status = CreateRank();
    loaded.Notify();
    return status;
  }

  absl::Status CreateRank() {
    ModelRank::Options options{.source = flags_.source,
                               .device = flags_.device,
                               .type = type_,
                               .rank = flags_.rank,
                               .tp = flags_.tp,
                               .leader_address = flags_.leader,
                               .kv_memory = kv_bytes_,
                               .max_running = flags_.max_running,
                               .max_batch_tokens = BatchTokens(),
                               .batch_invariant = flags_.batch_invariant,
                               .threads = flags_.threads};
    options.progress = [this](double part) { ReportProgress(fmt::format("{:.0f} %", 100 * part)); };
    options.message = [this](std::string_view message) { ReportProgress(message); };
    ASSIGN_OR_RETURN(rank_, ModelRank::Create(std::move(options)));
    return absl::OkStatus();
  }

  void ReportProgress(std::string_view state) {
    if (absl::Now() - last_progress_ < kProgressInterval) return;
    last_progress_ = absl::Now();
    Log(LogLevel::kInfo, "loading", {{"state", state}});
  }

  int BatchTokens() const {
    if (flags_.max_batch_tokens != 0) return flags_.max_batch_tokens;
    return flags_.device == "cuda" ? kCudaBatchTokens : kCpuBatchTokens;
  }

  absl::Status StartEngine() {
    ModelConfig config;
    if (rank_ == nullptr) {
      ASSIGN_OR_RETURN(config, LoadConfig(flags_.source));
    } else {
      config = rank_->config();
    }
    worker_metrics_ = std::make_unique<WorkerMetrics>(metrics_server_->registry());
    Engine::Options options{.config = config,
                            .num_kv_blocks = kNullBlocks,
                            .max_batch_tokens = BatchTokens(),
                            .max_running = flags_.max_running,
                            .max_queue = flags_.max_queue,
                            .max_queue_tokens = flags_.max_queue_tokens,
                            .stall_timeout = absl::Seconds(flags_.stall_timeout_seconds),
                            .observer = worker_metrics_.get()};
    options.on_failure = [this](const absl::Status& failure) {
      Log(LogLevel::kError, "the engine failed", {{"error", Message(failure)}});
      shutdown_.Trigger();
    };
    std::unique_ptr<Executor> executor;
    if (rank_ == nullptr) {
      executor = std::make_unique<NullExecutor>(NullExecutor::Options{
          .config = config, .delay = absl::Microseconds(flags_.null_step_us)});
    } else {
      options.num_kv_blocks = rank_->num_kv_blocks();
      options.block_tokens = GptModel::block_tokens();
      options.heartbeat = rank_->heartbeat();
      executor = rank_->MakeExecutor();
    }
    block_tokens_ = options.block_tokens;
    ASSIGN_OR_RETURN(engine_, Engine::Create(std::move(options), std::move(executor)));
    return absl::OkStatus();
  }

  absl::Status Serve() {
    const ModelConfig& config = engine_->config();
    const std::string model_name = flags_.model_name.empty() ? config.name : flags_.model_name;
    router_metrics_ = std::make_unique<RouterMetrics>(
        metrics_server_->registry(), model_name, block_tokens_, engine_->load().total_kv_blocks);
    service_ = std::make_unique<WorkerService>(
        WorkerService::Options{.engine = engine_.get(),
                               .model_name = model_name,
                               .device = flags_.device,
                               .dtype = std::string(ToString(type_)),
                               .tp = flags_.tp,
                               .kv_block_tokens = block_tokens_,
                               .tokenizer_fingerprint = flags_.tokenizer_fingerprint,
                               .on_tick = [this](const EngineLoad& load) {
                                 worker_metrics_->SetLoad(load);
                                 router_metrics_->SetLoad(load);
                                 if (rank_ == nullptr) return;
                                 if (const auto metrics = rank_->device_metrics()) {
                                   worker_metrics_->SetDevice(*metrics);
                                 }
                               }});
    ASSIGN_OR_RETURN(server_,
                     RpcServer::Create({.address = flags_.address, .services = {service_.get()}}));
    server_->SetServing(true);
    Log(LogLevel::kInfo, "serving",
        {{"address", server_->address()},
         {"metrics_address", metrics_server_->address()},
         {"model", config.name},
         {"dtype", ToString(type_)},
         {"tp", flags_.tp},
         {"kv_blocks", engine_->load().total_kv_blocks}});
    std::printf("ready %s\n", server_->address().c_str());
    std::fflush(stdout);
    notifier_.emplace();
    return absl::OkStatus();
  }

  absl::Status Drain() {
    server_->SetServing(false);
    engine_->BeginDrain();
    if (!engine_->WaitIdle(absl::Seconds(flags_.drain_timeout_seconds))) {
      Log(LogLevel::kWarning, "requests were still running at the end of the drain timeout");
    }
    // A failure during the drain ended the requests; the process still reports it.
    if (!engine_->health().ok()) return Abandon();
    service_->EndSessions(Unavailable("the worker has shut down"));
    server_->Shutdown(kFlushTime);
    service_.reset();
    engine_.reset();
    return absl::OkStatus();
  }

  // The engine's thread may hang in a step: tell the gateways and leave without it.
  absl::Status Abandon() {
    const absl::Status failure = engine_->health();
    server_->SetServing(false);
    service_->EndSessions(failure);
    server_->Shutdown(kFlushTime);
    std::_Exit(ReportError("hanlin-worker", failure));
  }

  const Flags flags_;
  ShutdownSignal& shutdown_;
  ComputeType type_ = ComputeType::kFloat32;
  std::optional<uint64_t> kv_bytes_;
  int32_t block_tokens_ = 0;
  absl::Time last_progress_ = absl::Now();
  std::optional<ServiceNotifier> notifier_;
  // Destroyed from the end.
  std::unique_ptr<MetricsServer> metrics_server_;
  std::unique_ptr<WorkerMetrics> worker_metrics_;
  std::unique_ptr<RouterMetrics> router_metrics_;
  std::unique_ptr<ModelRank> rank_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<WorkerService> service_;
  std::unique_ptr<RpcServer> server_;
};

// The ranks of this host, this process among them as `flags->rank`.
absl::Status StartHostRanks(Flags* flags) {
  RETURN_IF_ERROR(CheckGroupSize(flags->tp, flags->host_ranks));
  ASSIGN_OR_RETURN(const int index, ForkHostRanks(flags->host_ranks));
  flags->rank = flags->rank * flags->host_ranks + index;
  if (index > 0) flags->metrics_address.clear();  // one per host
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Runs one rank of a Hanlin worker group.", "hanlin-worker");
  AddFlags(app, flags);
  if (const auto code = ParseFlags(app, argc, argv)) return *code;
  if (flags.parent_death) DieWithParent();
  if (const absl::Status status = StartHostRanks(&flags); !status.ok()) {
    return ReportError("hanlin-worker", status);
  }
  ShutdownSignal shutdown;
  flags.log.process = flags.tp > 1 ? fmt::format("worker@{}", flags.rank) : "worker";
  if (const absl::Status status = SetupLogging(flags.log); !status.ok()) {
    return ReportError("hanlin-worker", status);
  }
  LogUnknownVariables();
  const absl::Status status = Worker(std::move(flags), &shutdown).Run();
  return status.ok() ? kExitOk : ReportError("hanlin-worker", status);
}

}  // namespace
}  // namespace hanlin

int main(int argc, char** argv) { return hanlin::Main(argc, argv); }
