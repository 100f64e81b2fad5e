// The table of keys behind config.h, and YAML by yaml-cpp, whose exceptions end here.
#include "trainer/config/config.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <functional>
#include <map>

#include "common/io/file.h"
#include "common/status/status.h"
#include "common/text/nearest.h"

namespace hanlin {
namespace {

// How a value is read into the configuration and written for Describe.
struct Key {
  std::function<absl::Status(const std::vector<std::string>& values, bool is_list)> set;
  std::function<std::string()> show;
};
using Keys = std::map<std::string, Key>;

absl::StatusOr<std::string> Single(const std::vector<std::string>& values, bool is_list) {
  if (is_list || values.size() != 1) return InvalidArgument("is a list, want one value");
  return values[0];
}

Key Text(std::string* field) {
  return {[field](const auto& values, bool is_list) -> absl::Status {
            ASSIGN_OR_RETURN(*field, Single(values, is_list));
            return absl::OkStatus();
          },
          [field] { return *field; }};
}

Key Choice(std::string* field, const std::vector<std::string>& allowed) {
  return {[=](const auto& values, bool is_list) -> absl::Status {
            ASSIGN_OR_RETURN(const std::string value, Single(values, is_list));
            for (const std::string& name : allowed) {
              if (name != value) continue;
              *field = value;
              return absl::OkStatus();
            }
            return InvalidArgument("is '{}', want {}", value, fmt::join(allowed, ", "));
          },
          [field] { return *field; }};
}

Key Integer(int64_t* field, int64_t min, int64_t max) {
  return {[=](const auto& values, bool is_list) -> absl::Status {
            ASSIGN_OR_RETURN(const std::string text, Single(values, is_list));
            int64_t value = 0;
            const char* const end = text.data() + text.size();
            const auto result = std::from_chars(text.data(), end, value);
            if (result.ec != std::errc() || result.ptr != end || value < min || value > max) {
              return InvalidArgument("is '{}', want an integer in [{}, {}]", text, min, max);
            }
            *field = value;
            return absl::OkStatus();
          },
          [field] { return fmt::format("{}", *field); }};
}

Key Number(double* field, double min, double max) {
  return {[=](const auto& values, bool is_list) -> absl::Status {
            ASSIGN_OR_RETURN(const std::string text, Single(values, is_list));
            double value = 0;
            const char* const end = text.data() + text.size();
            const auto result = std::from_chars(text.data(), end, value);
            if (result.ec != std::errc() || result.ptr != end || !(value >= min && value <= max)) {
              return InvalidArgument("is '{}', want a number in [{}, {}]", text, min, max);
            }
            *field = value;
            return absl::OkStatus();
          },
          [field] { return fmt::format("{}", *field); }};
}

Key Flag(bool* field) {
  return {[=](const auto& values, bool is_list) -> absl::Status {
            ASSIGN_OR_RETURN(const std::string text, Single(values, is_list));
            if (text != "true" && text != "false") {
              return InvalidArgument("is '{}', want true or false", text);
            }
            *field = text == "true";
            return absl::OkStatus();
          },
          [field] { return *field ? "true" : "false"; }};
}

Key List(std::vector<std::string>* field) {
  return {[=](const auto& values, bool) -> absl::Status {
            *field = values;
            return absl::OkStatus();
          },
          [field] { return fmt::format("[{}]", fmt::join(*field, ", ")); }};
}

constexpr int64_t kMany = int64_t{1} << 40;
// More than any key has. An alias may make a map that holds itself.
constexpr int kMaxDepth = 4;

Keys MakeKeys(TrainConfig& c) {
  return {
      {"model", Text(&c.model)},
      {"tokenizer", Text(&c.tokenizer)},
      {"init", Choice(&c.init, {"checkpoint", "random"})},
      {"output", Text(&c.output)},
      {"resume", Text(&c.resume)},
      {"seed", Integer(&c.seed, 0, kMany)},
      {"data.train", List(&c.data.train)},
      {"data.valid", List(&c.data.valid)},
      {"data.format", Choice(&c.data.format, {"auto", "jsonl", "csv", "text"})},
      {"data.source_column", Text(&c.data.source_column)},
      {"data.target_column", Text(&c.data.target_column)},
      {"data.source_replace_from", Text(&c.data.source_replace_from)},
      {"data.source_replace_to", Text(&c.data.source_replace_to)},
      {"data.source_suffix", Text(&c.data.source_suffix)},
      {"data.sequence_length", Integer(&c.data.sequence_length, 2, 1 << 20)},
      {"data.loss", Choice(&c.data.loss, {"target", "all"})},
      {"data.drop_source", Number(&c.data.drop_source, 0, 1)},
      {"data.bad_rows", Choice(&c.data.bad_rows, {"fail", "skip"})},
      {"data.packing", Flag(&c.data.packing)},
      {"data.shuffle", Flag(&c.data.shuffle)},
      {"data.bucket", Integer(&c.data.bucket, 0, kMany)},
      {"data.cache", Text(&c.data.cache)},
      {"batch.size", Integer(&c.batch.size, 1, 1 << 24)},
      {"batch.tokens", Integer(&c.batch.tokens, 0, int64_t{1} << 31)},
      {"batch.micro", Integer(&c.batch.micro, 0, 1 << 24)},
      {"batch.mean", Choice(&c.batch.mean, {"token", "micro_batch"})},
      {"optimizer.lr", Number(&c.optimizer.lr, 0, 1e3)},
      {"optimizer.beta1", Number(&c.optimizer.beta1, 0, 0.999999)},
      {"optimizer.beta2", Number(&c.optimizer.beta2, 0, 0.999999)},
      {"optimizer.eps", Number(&c.optimizer.eps, 0, 1)},
      {"optimizer.weight_decay", Number(&c.optimizer.weight_decay, 0, 1e3)},
      {"optimizer.decay", Choice(&c.optimizer.decay, {"all", "matrices"})},
      {"optimizer.clip", Number(&c.optimizer.clip, 0, 1e9)},
      {"optimizer.freeze", List(&c.optimizer.freeze)},
      {"schedule.type", Choice(&c.schedule.type, {"noam", "cosine", "linear", "constant"})},
      {"schedule.warmup", Integer(&c.schedule.warmup, 0, kMany)},
      {"schedule.final_ratio", Number(&c.schedule.final_ratio, 0, 1)},
      {"schedule.stride", Integer(&c.schedule.stride, 1, 1 << 20)},
      {"run.epochs", Number(&c.run.epochs, 0, 1e6)},
      {"run.max_steps", Integer(&c.run.max_steps, 0, kMany)},
      {"run.on_nan", Choice(&c.run.on_nan, {"stop", "skip"})},
      {"dropout.embedding", Number(&c.dropout.embedding, 0, 0.99)},
      {"dropout.attention", Number(&c.dropout.attention, 0, 0.99)},
      {"dropout.hidden", Number(&c.dropout.hidden, 0, 0.99)},
      {"evaluation.every", Integer(&c.evaluation.every, 0, kMany)},
      {"evaluation.batch", Integer(&c.evaluation.batch, 1, 1 << 20)},
      {"evaluation.metric", Choice(&c.evaluation.metric, {"ppl", "ppl_modelscope", "rouge-1",
                                                          "rouge-l", "bleu-1", "bleu-4"})},
      {"evaluation.patience", Integer(&c.evaluation.patience, 0, kMany)},
      {"evaluation.generate", Integer(&c.evaluation.generate, 0, kMany)},
      {"evaluation.samples", List(&c.evaluation.samples)},
      {"evaluation.sample_tokens", Integer(&c.evaluation.sample_tokens, 1, 1 << 20)},
      {"evaluation.sample_temperature", Number(&c.evaluation.sample_temperature, 0, 100)},
      {"checkpoint.every", Integer(&c.checkpoint.every, 0, kMany)},
      {"checkpoint.keep", Integer(&c.checkpoint.keep, 1, 1 << 20)},
      {"checkpoint.dtype", Choice(&c.checkpoint.dtype, {"float32", "bfloat16"})},
      {"parallel.tensor", Integer(&c.parallel.tensor, 1, 64)},
      {"parallel.zero", Flag(&c.parallel.zero)},
      {"parallel.timeout", Number(&c.parallel.timeout, 0.1, 86400)},
      {"compute.threads", Integer(&c.compute.threads, 0, 1024)},
      {"compute.dtype", Choice(&c.compute.dtype, {"auto", "float32", "bfloat16"})},
      {"compute.recompute", Choice(&c.compute.recompute, {"none", "selective", "full"})},
      {"compute.device", Choice(&c.compute.device, {"cpu", "cuda"})},
      {"log.every", Integer(&c.log.every, 1, kMany)},
      {"log.tensorboard", Flag(&c.log.tensorboard)},
  };
}

absl::Status SetKey(Keys& keys, const std::string& name, const std::vector<std::string>& values,
                    bool is_list) {
  const auto found = keys.find(name);
  if (found != keys.end()) {
    return Annotate(found->second.set(values, is_list), fmt::format("{}", name));
  }
  std::vector<std::string_view> names;
  names.reserve(keys.size());
  for (const auto& entry : keys) names.push_back(entry.first);
  const std::string_view nearest = Nearest(name, names, name.size() / 2);
  return InvalidArgument("there is no key '{}'{}", name,
                         nearest.empty() ? "" : fmt::format(", do you mean '{}'?", nearest));
}

// Walks nested maps; a scalar or list ends a dotted key.
absl::Status SetNode(Keys& keys, const std::string& name, const YAML::Node& node, int depth = 0) {
  if (node.IsMap()) {
    if (depth > kMaxDepth) return InvalidArgument("{}: is a map in too many maps", name);
    for (const auto& entry : node) {
      const auto key = entry.first.as<std::string>();
      const std::string full = name.empty() ? key : fmt::format("{}.{}", name, key);
      RETURN_IF_ERROR(SetNode(keys, full, entry.second, depth + 1));
    }
    return absl::OkStatus();
  }
  if (name.empty()) return InvalidArgument("is not a map of keys");
  std::vector<std::string> values;
  if (node.IsSequence()) {
    for (const auto& item : node) {
      if (!item.IsScalar()) return InvalidArgument("{}: holds a list or map, want text", name);
      values.push_back(item.as<std::string>());
    }
  } else if (node.IsScalar()) {
    values.push_back(node.as<std::string>());
  } else {
    return InvalidArgument("{}: has no value", name);
  }
  return SetKey(keys, name, values, node.IsSequence());
}

absl::Status SetOverride(Keys& keys, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) {
    return InvalidArgument("--set '{}', want key=value", text);
  }
  YAML::Node value;
  try {
    value = YAML::Load(text.substr(equals + 1));
  } catch (const YAML::Exception& error) {
    return InvalidArgument("--set '{}': {}", text, error.msg);
  }
  if (value.IsMap()) return InvalidArgument("--set '{}': a map, want a value or a list", text);
  if (value.IsNull()) return SetKey(keys, text.substr(0, equals), {""}, false);
  return SetNode(keys, text.substr(0, equals), value);
}

absl::Status CheckTogether(const TrainConfig& c) {
  if (c.model.empty()) return InvalidArgument("model is not set, want a model folder");
  if (c.output.empty()) return InvalidArgument("output is not set, want a folder");
  if (c.data.train.empty()) return InvalidArgument("data.train is empty, want at least one file");
  if (c.evaluation.patience > 0 && c.data.valid.empty()) {
    return InvalidArgument("evaluation.patience needs data.valid");
  }
  if (!c.evaluation.metric.starts_with("ppl") && c.evaluation.generate == 0) {
    return InvalidArgument("evaluation.metric {} needs evaluation.generate", c.evaluation.metric);
  }
  if (c.run.epochs == 0 && c.run.max_steps == 0) {
    return InvalidArgument("run.epochs and run.max_steps are both 0, want an end");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TrainConfig> ParseTrainConfig(std::string_view yaml, std::string_view what,
                                             const std::vector<std::string>& overrides) {
  TrainConfig config;
  Keys keys = MakeKeys(config);
  try {
    const YAML::Node root = YAML::Load(std::string(yaml));
    if (!root.IsNull()) {
      if (const absl::Status status = SetNode(keys, "", root); !status.ok()) {
        return Annotate(status, what);
      }
    }
    for (const std::string& text : overrides) RETURN_IF_ERROR(SetOverride(keys, text));
  } catch (const YAML::Exception& error) {
    return InvalidArgument("{}: line {}: {}", what, error.mark.line + 1, error.msg);
  }
  RETURN_IF_ERROR(Annotate(CheckTogether(config), what));
  return config;
}

absl::StatusOr<TrainConfig> LoadTrainConfig(const std::string& path,
                                            const std::vector<std::string>& overrides) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, uint64_t{1} << 20));
  return ParseTrainConfig(text, path, overrides);
}

std::string Describe(const TrainConfig& config) {
  TrainConfig copy = config;
  std::string text;
  for (const auto& [name, key] : MakeKeys(copy)) {
    text += fmt::format("{}: {}\n", name, key.show());
  }
  return text;
}

}  // namespace hanlin
