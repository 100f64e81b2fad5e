// `hanlin bench`: the measurements behind docs/perf.md, each with what it is to be compared to.
#include <CLI/CLI.hpp>
#include <functional>
#include <memory>

#include "cli/bench/allreduce_bench.h"
#include "cli/bench/forward_bench.h"
#include "cli/bench/serve_bench.h"
#include "cli/bench/service_bench.h"
#include "cli/bench/tokenize_bench.h"
#include "cli/bench/train_bench.h"
#include "cli/command.h"
#include "common/flags/flags.h"
#include "common/status/status.h"

namespace hanlin::cli {
namespace {

// "name   value" lines; nested objects as "name.part".
void PrintText(const Json& json, const std::string& prefix = "") {
  for (const auto& [key, value] : json.items()) {
    if (value.is_object()) {
      PrintText(value, prefix + key + ".");
    } else if (value.is_number_float()) {
      fmt::print("{:<26} {:.4g}\n", prefix + key, value.get<double>());
    } else {
      fmt::print("{:<26} {}\n", prefix + key,
                 value.is_string() ? value.get<std::string>() : ToLine(value));
    }
  }
}

// Hangs one measurement on `bench`: `measure` runs after parsing.
template <typename Options>
void SetRun(CLI::App* command, Runner& run, const std::shared_ptr<Options>& options,
            absl::StatusOr<Json> (*measure)(const Options&)) {
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "One JSON object");
  command->callback([command, options, json, measure, &run] {
    run = [name = "hanlin bench " + command->get_name(), options, json, measure] {
      const absl::StatusOr<Json> result = measure(*options);
      if (!result.ok()) return ReportError(name, result.status());
      if (*json) {
        PrintJson(*result);
      } else {
        PrintText(*result);
      }
      return kExitOk;
    };
  });
}

void AddForward(CLI::App& bench, Runner& run, const std::string& name, const std::string& help,
                absl::StatusOr<Json> (*measure)(const ForwardBenchOptions&)) {
  auto options = std::make_shared<ForwardBenchOptions>();
  CLI::App* command = bench.add_subcommand(name, help);
  CLI::Option* model = command->add_option("--model", options->model, "Model folder");
  command
      ->add_option("--preset", options->preset, "Preset with random weights: base, large, 1.3B, …")
      ->excludes(model)
      ->capture_default_str();
  command
      ->add_option_function<std::string>(
          "--random-weights",
          [options](const std::string& preset) {
            if (!preset.empty()) options->preset = preset;
          },
          "The same as --preset; without a name it changes nothing")
      ->expected(0, 1)
      ->excludes(model);
  command->add_option("--device", options->device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  command->add_flag("--batch-invariant", options->batch_invariant,
                    "On a GPU: in the mode in which ids do not depend on what else runs");
  command->add_option("--dtype", options->dtype, "auto, fp32 or bf16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Threads (0: all cores)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->add_option("--batch", options->batch, "Sequences")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      ->add_option("--context", options->context,
                   "Tokens of each sequence before the step measured")
      ->capture_default_str();
  command->add_option("--seconds", options->seconds, "Time to measure for")
      ->check(PositiveNumber)
      ->capture_default_str();
  command->footer("Example:\n  hanlin bench " + name +
                  " --preset base --dtype bf16 --context 256 --batch 1 --json");
  SetRun(command, run, options, measure);
}

void AddTokenizeBench(CLI::App& bench, Runner& run) {
  auto options = std::make_shared<TokenizeBenchOptions>();
  CLI::App* command = bench.add_subcommand("tokenize", "Megabytes of text a second");
  command->add_option("--model", options->model, "Folder with a tokenizer");
  command->add_option("--input", options->input, "Text file (default: built-in text)");
  command->add_option("--threads", options->threads, "Threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--seconds", options->seconds, "Time to measure for")
      ->check(PositiveNumber)
      ->capture_default_str();
  SetRun(command, run, options, BenchTokenize);
}

void AddLoad(CLI::App& bench, Runner& run) {
  auto options = std::make_shared<LoadBenchOptions>();
  CLI::App* command = bench.add_subcommand("load", "Streams under load: latencies and throughput");
  command->add_option("--target", options->target, "HOST:PORT of a service (default: starts one)")
      ->check(ServerAddress);
  command->add_option("--tls-ca", options->tls_ca, "PEM certificate to check the service by");
  command->add_option("--model", options->model, "Model of the service that is started");
  command->add_flag("--null", options->null, "Null devices as workers: measures streaming alone");
  command
      ->add_option("--step-us", options->step_us,
                   "Microseconds that a step of the null devices takes: with few enough tokens a "
                   "second no pieces are merged, one id a message")
      ->check(NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--streams", options->streams, "Requests in flight")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_option("--requests", options->requests, "Requests in all (0: a few seconds' worth)")
      ->check(NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--max-tokens", options->max_tokens, "Tokens a request (0: 64, with --null 400)")
      ->check(NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--rate", options->rate, "Requests a second (0: the next when one has ended)")
      ->check(NonNegativeNumber)
      ->capture_default_str();
  command->add_option(
      "--input", options->input,
      "JSON lines {\"prompt\": …}, - for standard input (default: a built-in prompt)");
  command->footer(
      "TTFT time to first token, TPOT time per output token, ITL gap between messages, E2EL whole "
      "request. Added: what\n"
      "gateway and client add to the worker's own time.\n"
      "\n"
      "Examples:\n"
      "  hanlin bench load --null --streams 64 --json\n"
      "  hanlin bench load --null --streams 64 --step-us 800   one id a message\n"
      "  hanlin bench load --target 127.0.0.1:8080 --rate 20 --requests 400");
  SetRun(command, run, options, BenchLoad);
}

// Which service, and the model and device of one that is started.
void AddServiceFlags(CLI::App* command, ServeBenchOptions& options) {
  command->add_option("--target", options.target, "HOST:PORT of a service (default: starts one)")
      ->check(ServerAddress);
  command->add_option("--tls-ca", options.tls_ca, "PEM certificate to check the service by");
  CLI::Option* model = command->add_option("--model", options.model,
                                           "Model folder of the service that is started (default: "
                                           "the model that ships with Hanlin)");
  command
      ->add_option("--preset,--random-weights", options.preset,
                   "Preset with random weights: base, large, 1.3B, …")
      ->excludes(model);
  command->add_option("--device", options.device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--dtype", options.dtype, "auto, fp32 or bf16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str();
  command->add_flag("--batch-invariant", options.batch_invariant,
                    "On a GPU: in the mode in which ids do not depend on what else runs");
  command->add_option("--kv-memory", options.kv_memory, "Its KV cache, e.g. 2GiB");
}

void AddServeBench(CLI::App& bench, Runner& run) {
  auto options = std::make_shared<ServeBenchOptions>();
  CLI::App* command =
      bench.add_subcommand("serve", "The whole service in a steady state, beside the raw model");
  AddServiceFlags(command, *options);
  command->add_option("--concurrency", options->concurrency, "Requests in flight")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_option("--requests", options->requests, "Requests to measure, at least")
      ->check(PositiveNumber)
      ->capture_default_str();
  command->add_option("--seconds", options->seconds, "Time to measure for, at least")
      ->check(PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--prompt-tokens", options->prompt_tokens,
                   "Mean; lengths are uniform in a quarter to seven quarters of it")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--output-tokens", options->output_tokens, "Likewise")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_flag("--greedy", options->greedy, "Greedy draws (default: the model's sampling)");
  command->add_option("--seed", options->seed, "Of lengths, ids and draws")->capture_default_str();
  command
      ->add_option("--decode-ms", options->decode_ms,
                   "Milliseconds of a step in bench decode, --batch as many as --concurrency")
      ->check(PositiveNumber);
  command
      ->add_option("--prefill-ms-per-1k", options->prefill_ms_per_1k,
                   "Milliseconds of 1000 tokens in bench prefill")
      ->check(PositiveNumber);
  command->footer(
      "TTFT time to first token, TPOT time per output token, ITL gap between messages, E2EL whole "
      "request. With the raw\n"
      "figures: share = output tokens a second / (1 / (t_decode + r * t_prefill)), times a token, "
      "r "
      "prompt tokens per output token.\n"
      "\n"
      "Examples:\n"
      "  hanlin bench serve --requests 200 --seconds 10 --prompt-tokens 64 --output-tokens 32\n"
      "  hanlin bench serve --device cuda --preset 2.7B --concurrency 128 --decode-ms 9.4 "
      "--prefill-ms-per-1k 9.0 --json");
  SetRun(command, run, options, BenchServe);
}

void AddTrainBench(CLI::App& bench, Runner& run) {
  auto options = std::make_shared<TrainBenchOptions>();
  CLI::App* command =
      bench.add_subcommand("train", "Whole steps of training: tokens a second beside the peak");
  CLI::Option* model =
      command->add_option("--model", options->model, "Folder whose configuration is taken");
  command->add_option("--preset,--model-preset", options->preset, "Preset: base, large, 1.3B, …")
      ->excludes(model)
      ->capture_default_str();
  command->add_option("--vocab-size", options->vocab_size, "In place of the model's (0: its own)")
      ->check(NonNegativeNumber);
  command->add_option("--device", options->device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--dtype", options->dtype, "auto, fp32 or bf16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str();
  command->add_option("--recompute", options->recompute, "none, selective or full")
      ->check(CLI::IsMember({"none", "selective", "full"}))
      ->capture_default_str();
  command->add_option("--dropout", options->dropout, "All three rates")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Threads on a CPU (0: all processors)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->add_option("--batch", options->batch, "Sequences of a micro-batch")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command->add_option("--context", options->context, "Tokens of a sequence")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--accumulate", options->accumulate, "Micro-batches of a step")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command->add_option("--seconds", options->seconds, "Time to measure for")
      ->check(PositiveNumber)
      ->capture_default_str();
  command->footer(
      "mfu: share of a large product measured in the same run; recomputation does not count.\n"
      "\n"
      "Examples:\n"
      "  hanlin bench train --preset base --batch 4 --context 128 --json\n"
      "  hanlin bench train --device cuda --preset 2.7B --batch 4 --context 1024 --recompute full");
  SetRun(command, run, options, BenchTrain);
}

void AddAllReduce(CLI::App& bench, Runner& run) {
  auto options = std::make_shared<AllReduceBenchOptions>();
  CLI::App* command = bench.add_subcommand(
      "allreduce", "Sums and gatherings of ranks on this host over shared memory");
  command->add_option("--ranks", options->ranks, "Ranks")
      ->check(CLI::Range(2, 64))
      ->capture_default_str();
  command->add_option("--size", options->size, "Bytes of each rank's array, e.g. 4MiB")
      ->capture_default_str();
  command->add_option("--seconds", options->seconds, "Time to measure each operation for")
      ->check(PositiveNumber)
      ->capture_default_str();
  command->footer("Example:\n  hanlin bench allreduce --ranks 4 --size 64MiB --json");
  SetRun(command, run, options, BenchAllReduce);
}

void AddStart(CLI::App& bench, Runner& run) {
  auto options = std::make_shared<StartBenchOptions>();
  CLI::App* command =
      bench.add_subcommand("start", "From starting hanlin serve to ready and to the first token");
  command->add_option("--model", options->model, "Model folder");
  command->add_option("--device", options->device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--repeats", options->repeats, "Starts; the median counts")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  SetRun(command, run, options, BenchStart);
}

}  // namespace

void AddBench(CLI::App& app, Runner& run) {
  CLI::App* bench = app.add_subcommand(
      "bench",
      "Measure decode, prefill, training, collectives, tokenizing, load, the service and start");
  bench->require_subcommand(1);
  AddForward(*bench, run, "decode",
             "One token a sequence: bytes a second beside the rate of reading", BenchDecode);
  AddForward(*bench, run, "prefill", "Whole prompts: operations a second beside the peak",
             BenchPrefill);
  AddTrainBench(*bench, run);
  AddAllReduce(*bench, run);
  AddTokenizeBench(*bench, run);
  AddLoad(*bench, run);
  AddServeBench(*bench, run);
  AddStart(*bench, run);
}

}  // namespace hanlin::cli
