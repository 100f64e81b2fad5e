// Names and parts of a checkpoint folder, shared by the files of this folder.
#ifndef HANLIN_TRAINER_CHECKPOINT_FILES_H_
#define HANLIN_TRAINER_CHECKPOINT_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/train/train_model.h"

namespace hanlin {

inline constexpr std::string_view kWeightsFile = "/model.safetensors";
inline constexpr std::string_view kOptimizerFile = "/trainer/optimizer.safetensors";
inline constexpr std::string_view kStateFile = "/trainer/state.json";

// Copies this rank's part of a whole tensor into an array of the model.
absl::Status ScatterTensor(const StoredTensor& stored, const std::string& what,
                           const ParameterSlot& slot, TrainState state, TrainModel& model);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_CHECKPOINT_FILES_H_
