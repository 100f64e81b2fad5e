// The recipe of a training run: a YAML file of nested maps, single values overridden by dotted keys
// (`--set optimizer.lr=1e-4`). A key that does not exist is refused by name, a value of the wrong
// kind or out of range with what was wanted. docs/training.md describes the keys for users; the
// comments here are the reference. Plain data; thread-safe: no state.
#ifndef HANLIN_TRAINER_CONFIG_CONFIG_H_
#define HANLIN_TRAINER_CONFIG_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanlin {

struct TrainConfig {
  std::string model;                // folder: configuration, weights and tokenizer
  std::string tokenizer;            // folder; empty = model
  std::string init = "checkpoint";  // checkpoint | random (ModelScope's initialisation)
  std::string output;               // folder of checkpoints and logs
  std::string resume = "auto";  // auto (the newest checkpoint in output, if any) | never | a folder
  int64_t seed = 42;

  struct Data {
    std::vector<std::string> train;
    std::vector<std::string> valid;
    std::string format = "auto";  // auto (by the file's ending) | jsonl | csv | text
    std::string source_column = "src_txt";
    std::string target_column = "tgt_txt";
    std::string source_replace_from;  // every occurrence in the source, before source_suffix
    std::string source_replace_to;
    std::string source_suffix;
    int64_t sequence_length = 128;  // tokens and labels of a sample: one less (ModelScope's rule)
    std::string loss = "target";    // target (ModelScope's masks) | all (source tokens count too)
    double drop_source = 0;         // chance that a training sample loses its source
    std::string bad_rows = "fail";  // fail | skip
    bool packing = false;           // several samples a sequence, each its own document
    bool shuffle = true;
    int64_t bucket = 0;  // samples of a window that is sorted by length; 0 = no bucketing
    std::string cache;   // folder of tokenized data; empty = none
  } data;

  struct Batch {
    int64_t size = 16;   // samples of an optimizer step, all ranks together
    int64_t tokens = 0;  // instead: padded tokens of an optimizer step
    int64_t micro = 0;   // samples of a micro-batch on one rank; 0 = all of the rank's share
    std::string mean = "token";  // token (over the whole step) | micro_batch (ModelScope: the mean
                                 // of the micro-batches' means)
  } batch;

  struct Optimizer {
    double lr = 3e-4;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = 0.01;
    std::string decay = "all";        // all (ModelScope) | matrices
    double clip = 0;                  // largest norm of the whole gradient; 0 = off
    std::vector<std::string> freeze;  // names as `hanlin inspect` prints them, * matches anything
  } optimizer;

  struct Schedule {
    std::string type = "noam";  // noam | cosine | linear | constant
    int64_t warmup = 100;       // steps
    double final_ratio = 0;     // of lr, at the end of cosine and linear
    int64_t stride = 1;  // schedule steps an optimizer step (ModelScope: the micro-batches of one)
  } schedule;

  struct Run {
    double epochs = 10;
    int64_t max_steps = 0;        // 0 = as many as the epochs have
    std::string on_nan = "stop";  // stop | skip (the step; the schedule goes on)
  } run;

  struct Dropout {
    double embedding = 0;
    double attention = 0;
    double hidden = 0;
  } dropout;

  struct Evaluation {
    int64_t every = 0;   // steps; 0 = at the end of every epoch
    int64_t batch = 16;  // samples
    // What best and patience go by: ppl | ppl_modelscope | rouge-1 | rouge-l | bleu-1 | bleu-4
    std::string metric = "ppl";
    int64_t patience = 0;  // evaluations without a better one before the run ends; 0 = off
    std::vector<std::string> samples;  // sources that the model continues for the log
    int64_t generate = 0;        // validation samples whose target is generated, for rouge and bleu
    int64_t sample_tokens = 64;  // of a sample or a generated target, at most
    double sample_temperature = 0;  // 0 = greedy; else drawn by seed, the same at every evaluation
  } evaluation;

  struct Checkpoint {
    int64_t every = 0;              // steps; 0 = at the end of every epoch
    int64_t keep = 2;               // newest ones kept, the best one besides
    std::string dtype = "float32";  // of the weights in the model folder: float32 | bfloat16
  } checkpoint;

  struct Parallel {
    int64_t tensor = 1;
    bool zero = true;
    double timeout = 60;  // seconds that a rank may keep the others waiting
  } parallel;

  struct Compute {
    int64_t threads = 0;             // 0 = what the machine has, shared among the ranks of a host
    std::string dtype = "auto";      // of the products' operands: auto | float32 | bfloat16
    std::string recompute = "none";  // none | selective | full
    std::string device = "cpu";      // cpu (auto is float32) | cuda (auto is bfloat16)
  } compute;

  struct Log {
    int64_t every = 10;  // steps
    bool tensorboard = true;
  } log;
};

// `overrides`: "key=value" with dotted keys. INVALID_ARGUMENT names the file, key and value.
absl::StatusOr<TrainConfig> ParseTrainConfig(std::string_view yaml, std::string_view what,
                                             const std::vector<std::string>& overrides);
absl::StatusOr<TrainConfig> LoadTrainConfig(const std::string& path,
                                            const std::vector<std::string>& overrides);

// Every key and its value, one a line: what a run was started with, in the log and for comparing
// ranks.
std::string Describe(const TrainConfig& config);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_CONFIG_CONFIG_H_
