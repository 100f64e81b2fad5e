// A checkpoint on disk: Checkpoint::Open. Every canonical tensor is a list of pieces, one per shard
// on disk (one in all when shards hold copies); a read maps canonical rows to runs of rows of the
// pieces and copies rectangles.
//
// Rows of QKV on disk. Layout A, within a shard: head by head [q; k; v], row = head * 3d + p * d +
// j. Hugging Face and B: [Q; K; V], row = p * hidden + head * d + j. p is 0, 1, 2 for q, k, v; d
// the head size.
#include <algorithm>
#include <cstring>

#include "common/status/status.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/shards.h"
#include "model/checkpoint/weight_map.h"

namespace hanlin {
namespace {

// Rows compared at a time when tensors have to be equal.
constexpr int64_t kCompareRows = 64;

StoredMatrix AsCanonicalMatrix(const StoredTensor& tensor, bool transposed) {
  StoredMatrix matrix = {tensor.data, tensor.dtype, tensor.strides[0], 1};
  if (tensor.shape.size() == 2) matrix.col_stride = tensor.strides[1];
  if (transposed) std::swap(matrix.row_stride, matrix.col_stride);
  return matrix;
}

absl::Status CheckTensor(const std::string& name, const StoredTensor& tensor,
                         const std::vector<int64_t>& wanted) {
  if (tensor.dtype != DType::kFloat32 && tensor.dtype != DType::kFloat16 &&
      tensor.dtype != DType::kBFloat16) {
    return FailedPrecondition("{}: tensor {} has type {}, want float32, float16 or bfloat16",
                              tensor.file->path(), name, ToString(tensor.dtype));
  }
  if (tensor.shape != wanted) {
    return FailedPrecondition("{}: tensor {} has shape {}, want {} by config.json",
                              tensor.file->path(), name, ShapeString(tensor.shape),
                              ShapeString(wanted));
  }
  return absl::OkStatus();
}

bool SameValues(const StoredMatrix& a, const StoredMatrix& b, TensorShape shape) {
  if (a.data == b.data && a.dtype == b.dtype && a.row_stride == b.row_stride &&
      a.col_stride == b.col_stride) {
    return true;
  }
  const auto size = static_cast<size_t>(kCompareRows * shape.cols);
  std::vector<float> x(size), y(size);
  for (int64_t row = 0; row < shape.rows; row += kCompareRows) {
    const int64_t rows = std::min(kCompareRows, shape.rows - row);
    CopyRectangle(a, row, 0, rows, shape.cols, x.data(), shape.cols);
    CopyRectangle(b, row, 0, rows, shape.cols, y.data(), shape.cols);
    // Bits, so that NaN equals itself.
    if (std::memcmp(x.data(), y.data(), static_cast<size_t>(rows * shape.cols) * sizeof(float)) !=
        0)
      return false;
  }
  return true;
}

class FileCheckpoint final : public Checkpoint {
 public:
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Create(const ModelConfig& config,
                                                            std::vector<StoredTensors> shards);

 private:
  // Consecutive canonical rows that are consecutive rows of one piece.
  struct Run {
    size_t piece;
    int64_t row;     // in the piece
    int64_t length;  // how far the run reaches; may go beyond what is wanted
  };

  FileCheckpoint(const ModelConfig& config, std::vector<StoredTensors> shards)
      : Checkpoint(config), shards_(std::move(shards)) {}

  absl::Status Bind(TensorId id);
  absl::Status CheckNothingElse() const;
  absl::Status CheckLmHead() const;
  Run Locate(TensorRole role, int tp_rank, int tp_size, int64_t row) const;
  absl::Status DoReadRows(TensorId id, int tp_rank, int tp_size, int64_t row_begin, int64_t row_end,
                          float* dst) const override;

  int num_shards() const { return static_cast<int>(shards_.size()); }

  std::vector<StoredTensors> shards_;               // keeps the files mapped
  std::vector<std::vector<StoredMatrix>> tensors_;  // [TensorIndex][piece]
};

absl::StatusOr<std::unique_ptr<Checkpoint>> FileCheckpoint::Create(
    const ModelConfig& config, std::vector<StoredTensors> shards) {
  if (absl::Status status = CheckTp(config, static_cast<int>(shards.size())); !status.ok()) {
    return FailedPrecondition("the folder has {} shards: {}", shards.size(), Message(status));
  }
  std::unique_ptr<FileCheckpoint> checkpoint(new FileCheckpoint(config, std::move(shards)));
  for (const TensorId id : AllTensors(config)) RETURN_IF_ERROR(checkpoint->Bind(id));
  RETURN_IF_ERROR(checkpoint->CheckNothingElse());
  RETURN_IF_ERROR(checkpoint->CheckLmHead());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

// Finds the pieces of a tensor in all shards and checks them.
absl::Status FileCheckpoint::Bind(TensorId id) {
  const std::string name = StoredName(config().layout, id);
  const std::vector<int64_t> wanted = StoredShape(config(), id.role, num_shards());
  const bool replicated = SplitOf(id.role) == TensorSplit::kNone;
  std::vector<StoredMatrix>& pieces = tensors_.emplace_back();
  for (const StoredTensors& shard : shards_) {
    const auto it = shard.find(name);
    if (it == shard.end()) {
      const std::string file =
          shard.empty() ? "the checkpoint" : shard.begin()->second.file->path();
      return FailedPrecondition("{} has no tensor {} (want shape {})", file, name,
                                ShapeString(wanted));
    }
    RETURN_IF_ERROR(CheckTensor(name, it->second, wanted));
    const StoredMatrix piece =
        AsCanonicalMatrix(it->second, IsTransposed(config().layout, id.role));
    if (!replicated || pieces.empty()) {
      pieces.push_back(piece);
    } else if (!SameValues(pieces[0], piece, LocalShape(config(), id.role, num_shards()))) {
      return DataLoss("{}: tensor {} differs from that of the first shard, want equal copies",
                      it->second.file->path(), name);
    }
  }
  return absl::OkStatus();
}

// A tensor that the model does not have means another architecture or another number of layers.
absl::Status FileCheckpoint::CheckNothingElse() const {
  StoredTensors known;
  for (const TensorId id : AllTensors(config())) known[StoredName(config().layout, id)];
  for (const StoredTensors& shard : shards_) {
    for (const auto& [name, tensor] : shard) {
      const bool lm_head = config().layout == ModelLayout::kHuggingFaceGpt2 && name == kLmHeadName;
      if (known.contains(name) || lm_head || IsIgnoredBuffer(config().layout, name)) continue;
      return FailedPrecondition(
          "{}: tensor {} of shape {} is not part of a {} model with {} layers", tensor.file->path(),
          Printable(name), ShapeString(tensor.shape), ToString(config().layout),
          config().num_layers);
    }
  }
  return absl::OkStatus();
}

absl::Status FileCheckpoint::CheckLmHead() const {
  const auto it = shards_[0].find(std::string(kLmHeadName));
  if (it == shards_[0].end()) return absl::OkStatus();
  const TensorShape shape = LocalShape(config(), TensorRole::kWordEmbedding, 1);
  RETURN_IF_ERROR(CheckTensor(it->first, it->second, {shape.rows, shape.cols}));
  if (!SameValues(tensors_[0][0], AsCanonicalMatrix(it->second, false), shape)) {
    return FailedPrecondition(
        "{}: lm_head.weight differs from wte.weight, want a model with tied embeddings",
        it->second.file->path());
  }
  return absl::OkStatus();
}

FileCheckpoint::Run FileCheckpoint::Locate(TensorRole role, int tp_rank, int tp_size,
                                           int64_t row) const {
  const int64_t hidden = config().hidden_size;
  switch (SplitOf(role)) {
    case TensorSplit::kNone:
    case TensorSplit::kColumns:
      return {0, row, LocalShape(config(), role, 1).rows - row};
    case TensorSplit::kRows: {
      const int64_t piece_rows = LocalShape(config(), role, num_shards()).rows;
      const int64_t full_row = tp_rank * LocalShape(config(), role, tp_size).rows + row;
      return {static_cast<size_t>(full_row / piece_rows), full_row % piece_rows,
              piece_rows - full_row % piece_rows};
    }
    case TensorSplit::kQkvRows: {
      const int64_t local_hidden = hidden / tp_size, d = config().head_dim;
      const int64_t p = row / local_hidden;
      const int64_t head_row = tp_rank * local_hidden + row % local_hidden;  // head * d + j
      if (config().layout != ModelLayout::kModelScopeA) {
        return {0, p * hidden + head_row, local_hidden - row % local_hidden};
      }
      const int64_t piece_hidden = hidden / num_shards();
      const int64_t piece_head = head_row % piece_hidden / d, j = head_row % d;
      return {static_cast<size_t>(head_row / piece_hidden), piece_head * 3 * d + p * d + j, d - j};
    }
  }
  return {};
}

absl::Status FileCheckpoint::DoReadRows(TensorId id, int tp_rank, int tp_size, int64_t row_begin,
                                        int64_t row_end, float* dst) const {
  const std::vector<StoredMatrix>& pieces = tensors_[TensorIndex(config(), id)];
  const int64_t cols = LocalShape(config(), id.role, tp_size).cols;
  for (int64_t row = row_begin; row < row_end;) {
    const Run run = Locate(id.role, tp_rank, tp_size, row);
    const int64_t rows = std::min(run.length, row_end - row);
    float* const target = dst + (row - row_begin) * cols;
    if (SplitOf(id.role) != TensorSplit::kColumns) {
      CopyRectangle(pieces[run.piece], run.row, 0, rows, cols, target, cols);
    } else {
      const int64_t piece_cols = LocalShape(config(), id.role, num_shards()).cols;
      for (int64_t col = 0; col < cols;) {
        const int64_t full_col = tp_rank * cols + col;
        const int64_t count = std::min(cols - col, piece_cols - full_col % piece_cols);
        CopyRectangle(pieces[static_cast<size_t>(full_col / piece_cols)], run.row,
                      full_col % piece_cols, rows, count, target + col, cols);
        col += count;
      }
    }
    row += rows;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory,
                                                             const ModelConfig& config) {
  ASSIGN_OR_RETURN(std::vector<StoredTensors> shards, OpenShards(directory, config.layout));
  return FileCheckpoint::Create(config, std::move(shards));
}

}  // namespace hanlin
