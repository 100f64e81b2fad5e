// `hanlin generate`: continues prompts, in this process or on a server, as text or JSON, whole or
// as it comes.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <thread>

#include "absl/synchronization/notification.h"
#include "cli/command.h"
#include "cli/generate/backend.h"
#include "cli/generate/generate_flags.h"
#include "cli/generate/result_json.h"
#include "cli/output/json.h"
#include "cli/output/progress.h"
#include "common/flags/flags.h"
#include "common/rpc/shutdown.h"
#include "common/status/status.h"

namespace hanlin::cli {
namespace {

using Requests = std::vector<v1::StreamGenerateRequest>;

// Prompts of a file that run side by side.
constexpr size_t kSideBySide = 16;

void PrintText(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Ctrl-C ends what runs in `backend`; a second one ends the process (ShutdownSignal).
class CancelOnSignal {
 public:
  CancelOnSignal(ShutdownSignal& signal, Backend& backend)
      : thread_([&signal, &backend](const std::stop_token& stop) {
          while (!stop.stop_requested()) {
            if (!signal.WaitFor(absl::Milliseconds(50))) continue;
            backend.CancelAll();
            return;
          }
        }) {}

 private:
  std::jthread thread_;
};

absl::Status Stream(Backend& backend, const Requests& requests, bool json) {
  for (size_t i = 0; i < requests.size(); ++i) {
    const absl::Status status =
        backend.Generate(requests[i], [&](const v1::StreamGenerateResponse& piece) {
          if (!json) return PrintText(piece.text_delta());
          Json object = PieceJson(piece);
          if (requests.size() > 1) object["index"] = i;
          PrintJson(object);
        });
    if (!json) PrintText("\n");
    if (!status.ok())
      return requests.size() > 1 ? Annotate(status, fmt::format("prompt {}", i + 1)) : status;
  }
  return absl::OkStatus();
}

// Runs `requests` side by side and prints the results in their order.
class WholeRun {
 public:
  WholeRun(Backend& backend, const Requests& requests, bool json)
      : backend_(backend), requests_(requests), json_(json), results_(requests.size()) {}

  absl::Status Run() {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < std::min(kSideBySide, requests_.size()); ++i)
      threads.emplace_back([this] { Work(); });
    Progress progress("generating");
    for (size_t i = 0; i < requests_.size(); ++i) {
      while (!results_[i].done.WaitForNotificationWithTimeout(absl::Milliseconds(100))) {
        if (requests_.size() > 1) progress.Update(static_cast<double>(i) / requests_.size());
      }
      if (!results_[i].status.ok()) {
        backend_.CancelAll();
        return requests_.size() > 1 ? Annotate(results_[i].status, fmt::format("prompt {}", i + 1))
                                    : results_[i].status;
      }
      if (json_) {
        PrintJson(WholeJson(results_[i].whole));
      } else {
        PrintText(results_[i].whole.text_delta() + "\n");
      }
      results_[i].whole.Clear();
    }
    return absl::OkStatus();
  }

 private:
  struct Result {
    v1::StreamGenerateResponse whole;
    absl::Status status;
    absl::Notification done;
  };

  void Work() {
    while (true) {
      const size_t i = next_++;
      if (i >= requests_.size()) return;
      Result& result = results_[i];
      result.status = backend_.Generate(
          requests_[i],
          [&result](const v1::StreamGenerateResponse& piece) { MergePiece(piece, &result.whole); });
      result.done.Notify();
    }
  }

  Backend& backend_;
  const Requests& requests_;
  const bool json_;
  std::vector<Result> results_;
  std::atomic<size_t> next_ = 0;
};

absl::Status Generate(const GenerateFlags& flags) {
  ASSIGN_OR_RETURN(const Requests requests, MakeRequests(flags));
  ShutdownSignal signal;
  std::unique_ptr<Backend> backend;
  if (flags.target.empty()) {
    ASSIGN_OR_RETURN(backend, MakeLocalBackend(flags.model));
  } else {
    ASSIGN_OR_RETURN(backend, MakeRemoteBackend({.target = flags.target,
                                                 .ca_certificate = flags.tls_ca,
                                                 .timeout = absl::Seconds(flags.timeout_seconds)}));
  }
  const CancelOnSignal cancel(signal, *backend);
  if (flags.stream) return Stream(*backend, requests, flags.json);
  return WholeRun(*backend, requests, flags.json).Run();
}

}  // namespace

void AddGenerate(CLI::App& app, Runner& run) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* generate =
      app.add_subcommand("generate", "Continue a text, in this process or on a server");
  AddGenerateFlags(*generate, *flags);
  generate->footer(
      "Examples:\n"
      "  hanlin generate --prompt $'《静夜思》李白\\n' --stream\n"
      "  hanlin generate --prompt $'《静夜思》李白\\n' --greedy --max-tokens 40 --json\n"
      "  hanlin generate --target 127.0.0.1:8080 --prompt $'《春望》杜甫\\n' --temperature 0.8 "
      "--seed 7\n"
      "  hanlin generate --input prompts.jsonl --json > texts.jsonl");
  generate->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Generate(*flags);
      return status.ok() ? kExitOk : ReportError("hanlin generate", status);
    };
  });
}

}  // namespace hanlin::cli
