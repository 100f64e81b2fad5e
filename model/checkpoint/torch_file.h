// Reader of files written by torch.save, in both of its formats:
//   zip (since 1.6)   NAME/data.pkl (the pickle), NAME/data/KEY (one stored entry per storage),
//                     NAME/byteorder
//   legacy            five parts: pickles of a magic number, of the protocol version 1001, of
//                     {little_endian, type_sizes}, of the object, of the list of storage keys; then
//                     per key, in that order, an int64 count of elements and the elements
// Tensors are found where checkpoints keep them: in a flat dict of name → tensor, or in such a dict
// under 'module' (DeepSpeed) or 'state_dict' (trainers), which may be nested. Other entries are
// ignored. Nothing is executed (pickle.h); every storage must lie inside the file.
#ifndef HANLIN_MODEL_CHECKPOINT_TORCH_FILE_H_
#define HANLIN_MODEL_CHECKPOINT_TORCH_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/stored_tensor.h"

namespace hanlin {

// Maps `path` and lists its tensors. DATA_LOSS for a damaged file, FAILED_PRECONDITION for one that
// holds what is not accepted; both name the file.
absl::StatusOr<StoredTensors> ReadTorchFile(const std::string& path);

}  // namespace hanlin

#endif  // HANLIN_MODEL_CHECKPOINT_TORCH_FILE_H_
