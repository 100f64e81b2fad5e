// Reader of safetensors files. Layout:
//   8 bytes    n, little-endian
//   n bytes    JSON object:
//              name → {"dtype": "F32", "shape": […], "data_offsets": [begin, end]};
//              "__metadata__" is a map of strings and is skipped
//   the rest   data, little-endian; offsets count from here, tensors are contiguous and
//              row-major
// The file is a stranger's: every number is checked before use, tensors may not overlap, and
// nothing is allocated in proportion to a number that the file merely claims.
#ifndef HANLIN_MODEL_CHECKPOINT_SAFETENSORS_H_
#define HANLIN_MODEL_CHECKPOINT_SAFETENSORS_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/stored_tensor.h"

namespace hanlin {

// Maps `path` and lists its tensors. DATA_LOSS names the file, the tensor and what is wrong.
absl::StatusOr<StoredTensors> ReadSafetensors(const std::string& path);

}  // namespace hanlin

#endif  // HANLIN_MODEL_CHECKPOINT_SAFETENSORS_H_
