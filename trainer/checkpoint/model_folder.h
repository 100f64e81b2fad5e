// Writes a model folder in Hugging Face's layout, which the worker serves and transformers opens:
// config.json, the tokenizer's files, model.safetensors. Tensor by tensor: one is held at a time.
#ifndef HANLIN_TRAINER_CHECKPOINT_MODEL_FOLDER_H_
#define HANLIN_TRAINER_CHECKPOINT_MODEL_FOLDER_H_

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/config/config.h"

namespace hanlin {

struct ModelFolderOptions {
  ModelConfig config;               // of any layout
  std::string tokenizer_directory;  // whose files are copied; empty: none
  bool bfloat16 = false;            // else float32
};

// The whole canonical tensor number i of AllTensors(config); holds until the next call.
using TensorSource = std::function<absl::StatusOr<std::span<const float>>(size_t i)>;

// Into `folder`, which exists. RESOURCE_EXHAUSTED on a full disk.
absl::Status WriteModelFolder(const std::string& folder, const ModelFolderOptions& options,
                              const TensorSource& tensor);

// "WHAT: reason"; RESOURCE_EXHAUSTED when the disk is full.
absl::Status FileError(std::string_view what, const std::error_code& error);

// What was written and renamed in a folder survives a loss of power from here on.
absl::Status SyncDirectory(const std::string& path);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_CHECKPOINT_MODEL_FOLDER_H_
