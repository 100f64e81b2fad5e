// What a model folder holds and what it needs: the data behind `hanlin inspect`. Opening checks the
// whole folder as serving would, so an inspected model loads. Pure functions of the folder;
// thread-safe.
#ifndef HANLIN_MODEL_INSPECT_INSPECT_H_
#define HANLIN_MODEL_INSPECT_INSPECT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/types.h"
#include "model/config/config.h"

namespace hanlin {

struct FileInfo {
  std::string path;  // relative to the folder
  int64_t bytes = 0;
};

struct TensorInfo {
  std::string name;  // as in the file, without wrappers' prefixes
  int shard = 0;     // tensor-parallel shard on disk
  std::string file;  // relative to the folder
  std::string dtype;
  std::vector<int64_t> shape;  // of the shard
};

// What one rank takes in memory.
struct MemoryNeed {
  int tp_size = 1;
  ComputeType type = ComputeType::kFloat32;
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes_per_token = 0;
  uint64_t kv_bytes_per_context = 0;  // one sequence as long as max_positions, in whole blocks
};

struct ModelInspection {
  ModelConfig config;
  std::vector<FileInfo> files;      // weight files; none for a preset
  int num_shards = 0;               // tensor-parallel shards on disk
  std::vector<TensorInfo> tensors;  // by shard and name
  std::string dtype;                // of the weights on disk: one type, or "mixed"
  std::vector<MemoryNeed> memory;   // every allowed degree up to 8, fp32 and bf16
};

// Errors of LoadModelConfig and Checkpoint::Open.
absl::StatusOr<ModelInspection> InspectFolder(const std::string& directory);

// A preset or any other configuration without files.
ModelInspection InspectConfig(const ModelConfig& config);

// One JSON object; sizes in bytes.
nlohmann::json ToJson(const ModelInspection& inspection);

// Lines for people. `all_tensors` lists each tensor, otherwise only their number.
std::string ToText(const ModelInspection& inspection, bool all_tensors);

}  // namespace hanlin

#endif  // HANLIN_MODEL_INSPECT_INSPECT_H_
