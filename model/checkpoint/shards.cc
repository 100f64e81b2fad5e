// See shards.h.
#include "model/checkpoint/shards.h"

#include <fmt/ranges.h>

#include "common/io/file.h"
#include "common/status/status.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/torch_file.h"
#include "model/checkpoint/weight_map.h"
#include "model/config/json.h"

namespace hanlin {
namespace {

constexpr std::string_view kRankPrefix = "mp_rank_", kRankSuffix = "_model_states.pt";
constexpr size_t kMaxShards = 1024;

absl::StatusOr<StoredTensors> ReadWeightFile(const std::string& path) {
  return path.ends_with(".safetensors") ? ReadSafetensors(path) : ReadTorchFile(path);
}

absl::StatusOr<StoredTensors> StripPrefixes(ModelLayout layout, StoredTensors tensors) {
  StoredTensors result;
  while (!tensors.empty()) {
    auto node = tensors.extract(tensors.begin());
    node.key() = std::string(StripPrefix(layout, node.key()));
    const auto [at, inserted, refused] = result.insert(std::move(node));
    if (!inserted) {
      return DataLoss("{}: tensor {} is there with and without a prefix", at->second.file->path(),
                      at->first);
    }
  }
  return result;
}

// {"weight_map": {tensor name: file name}}; the files are beside the index.
absl::StatusOr<StoredTensors> ReadIndexed(const std::string& directory,
                                          const std::string& index_name) {
  const std::string path = directory + "/" + index_name;
  ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonObject(path));
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object())
    return InvalidArgument("{} has no weight_map object", path);
  std::map<std::string, StoredTensors> files;
  StoredTensors tensors;
  for (const auto& [name, file] : map->items()) {
    if (!file.is_string())
      return InvalidArgument("{}: {} maps to a {}, want a file name", path, name, file.type_name());
    const auto file_name = file.get<std::string>();
    if (file_name.find('/') != std::string::npos) {
      return InvalidArgument("{}: {} is in \"{}\", want a name of a file beside the index", path,
                             name, file_name);
    }
    auto known = files.find(file_name);
    if (known == files.end()) {
      if (files.size() >= kMaxShards)
        return InvalidArgument("{} names more than {} files", path, kMaxShards);
      ASSIGN_OR_RETURN(StoredTensors contents, ReadWeightFile(directory + "/" + file_name));
      known = files.emplace(file_name, std::move(contents)).first;
    }
    const auto tensor = known->second.find(name);
    if (tensor == known->second.end())
      return DataLoss("{}: {} holds no tensor {}", path, file_name, name);
    tensors.emplace(name, tensor->second);
  }
  return tensors;
}

absl::StatusOr<StoredTensors> OpenSingle(const std::string& directory) {
  static const std::vector<std::string> kNames = {
      "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json",
      "pytorch_model.bin"};
  for (const std::string& name : kNames) {
    if (!FileExists(directory + "/" + name)) continue;
    return name.ends_with(".json") ? ReadIndexed(directory, name)
                                   : ReadWeightFile(directory + "/" + name);
  }
  return NotFound("{} has no weights, looked for {}", directory, fmt::join(kNames, ", "));
}

std::string RankFileName(size_t rank) {
  return fmt::format("{}{:02}{}", kRankPrefix, rank, kRankSuffix);
}

// Names of the shard files, in order. In a folder of their own (`strict`) nothing else may stand
// beside them.
absl::StatusOr<std::vector<std::string>> FindRankFiles(const std::string& directory, bool strict) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory));
  std::vector<std::string> found;
  for (const std::string& name : names) {
    if (name.starts_with(kRankPrefix) && name.ends_with(kRankSuffix)) {
      found.push_back(name);
    } else if (strict && !name.starts_with(".")) {
      return FailedPrecondition("{} holds {}, want nothing but {}", directory, name,
                                RankFileName(0));
    }
  }
  if (found.empty())
    return NotFound("{} has no weights, looked for {}", directory, RankFileName(0));
  if (found.size() > kMaxShards) {
    return FailedPrecondition("{} has {} shards, want at most {}", directory, found.size(),
                              kMaxShards);
  }
  std::vector<std::string> wanted;
  for (size_t rank = 0; rank < found.size(); ++rank) {
    wanted.push_back(RankFileName(rank));
    if (!FileExists(directory + "/" + wanted.back())) {
      return NotFound("{} has {} shards, but {} is missing (found {})", directory, found.size(),
                      wanted.back(), fmt::join(found, ", "));
    }
  }
  return wanted;
}

}  // namespace

absl::StatusOr<std::vector<StoredTensors>> OpenShards(const std::string& directory,
                                                      ModelLayout layout) {
  std::vector<StoredTensors> shards;
  if (layout != ModelLayout::kModelScopeA) {
    ASSIGN_OR_RETURN(StoredTensors tensors, OpenSingle(directory));
    ASSIGN_OR_RETURN(shards.emplace_back(), StripPrefixes(layout, std::move(tensors)));
    return shards;
  }
  const bool own_folder = FileExists(directory + "/model");
  const std::string folder = own_folder ? directory + "/model" : directory;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, FindRankFiles(folder, own_folder));
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(StoredTensors tensors, ReadTorchFile(folder + "/" + name));
    ASSIGN_OR_RETURN(shards.emplace_back(), StripPrefixes(layout, std::move(tensors)));
  }
  return shards;
}

}  // namespace hanlin
