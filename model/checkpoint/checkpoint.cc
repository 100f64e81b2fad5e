// See checkpoint.h: what all checkpoints share, the checks of arguments.
#include "model/checkpoint/checkpoint.h"

#include "common/status/status.h"

namespace hanlin {

absl::Status Checkpoint::ReadRows(TensorId id, int tp_rank, int tp_size, int64_t row_begin,
                                  int64_t row_end, float* dst) const {
  RETURN_IF_ERROR(CheckTp(config_, tp_size));
  if (tp_rank < 0 || tp_rank >= tp_size)
    return InvalidArgument("rank is {}, want 0 to {}", tp_rank, tp_size - 1);
  if (id.layer < 0 || id.layer >= config_.num_layers) {
    return InvalidArgument("layer is {}, want 0 to {}", id.layer, config_.num_layers - 1);
  }
  const TensorShape shape = LocalShape(config_, id.role, tp_size);
  if (row_begin < 0 || row_begin > row_end || row_end > shape.rows) {
    return InvalidArgument("rows are [{}, {}), want a range within the {} of {}", row_begin,
                           row_end, shape.rows, ToString(id));
  }
  return DoReadRows(id, tp_rank, tp_size, row_begin, row_end, dst);
}

absl::Status Checkpoint::Read(TensorId id, int tp_rank, int tp_size, float* dst) const {
  RETURN_IF_ERROR(CheckTp(config_, tp_size));
  return ReadRows(id, tp_rank, tp_size, 0, LocalShape(config_, id.role, tp_size).rows, dst);
}

}  // namespace hanlin
