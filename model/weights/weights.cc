// See weights.h. Loading is a flat list of pieces (a tensor's rows, a panel's multiple at a time)
// that the threads take one after another; a piece writes memory that no other piece touches.
#include "model/weights/weights.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr int64_t kPieceFloats = 256 << 10;  // 1 MiB of fp32 a thread

// A tensor and where it goes: into a packed matrix, or as it is into `vector`.
struct Destination {
  TensorId id;
  TensorShape shape;  // on this rank
  PackedMatrix* matrix = nullptr;
  const float** vector = nullptr;
};

struct Piece {
  const Destination* destination;
  int64_t row_begin;
  int64_t row_end;
};

// Every tensor of the model in the order of the forward pass, so that neighbours in time are
// neighbours in memory.
std::vector<Destination> Destinations(const ModelConfig& config, int tp_size, GptWeights* weights) {
  std::vector<Destination> all;
  const auto matrix = [&](TensorRole role, int layer, PackedMatrix* to) {
    all.push_back({{role, layer}, LocalShape(config, role, tp_size), to, nullptr});
  };
  const auto vector = [&](TensorRole role, int layer, const float** to) {
    all.push_back({{role, layer}, LocalShape(config, role, tp_size), nullptr, to});
  };
  vector(TensorRole::kPositionEmbedding, 0, &weights->position_embedding);
  weights->layers.resize(config.num_layers);
  for (int i = 0; i < config.num_layers; ++i) {
    LayerWeights& layer = weights->layers[i];
    vector(TensorRole::kLn1Weight, i, &layer.ln1_weight);
    vector(TensorRole::kLn1Bias, i, &layer.ln1_bias);
    matrix(TensorRole::kQkvWeight, i, &layer.qkv);
    vector(TensorRole::kQkvBias, i, &layer.qkv_bias);
    matrix(TensorRole::kAttnOutWeight, i, &layer.attention_out);
    vector(TensorRole::kAttnOutBias, i, &layer.attention_bias);
    vector(TensorRole::kLn2Weight, i, &layer.ln2_weight);
    vector(TensorRole::kLn2Bias, i, &layer.ln2_bias);
    matrix(TensorRole::kMlpUpWeight, i, &layer.mlp_up);
    vector(TensorRole::kMlpUpBias, i, &layer.mlp_up_bias);
    matrix(TensorRole::kMlpDownWeight, i, &layer.mlp_down);
    vector(TensorRole::kMlpDownBias, i, &layer.mlp_down_bias);
  }
  vector(TensorRole::kFinalLnWeight, 0, &weights->final_ln_weight);
  vector(TensorRole::kFinalLnBias, 0, &weights->final_ln_bias);
  matrix(TensorRole::kWordEmbedding, 0, &weights->word_embedding);
  return all;
}

uint64_t TotalBytes(const std::vector<Destination>& destinations, ComputeType type) {
  uint64_t bytes = 0;
  for (const Destination& d : destinations) {
    bytes +=
        Arena::RoundUp(d.matrix != nullptr ? PackedMatrix::Bytes(type, d.shape.rows, d.shape.cols)
                                           : d.shape.size() * sizeof(float));
  }
  return bytes;
}

std::vector<Piece> CutIntoPieces(const std::vector<Destination>& destinations) {
  std::vector<Piece> pieces;
  for (const Destination& d : destinations) {
    // Whole panels, so that no two threads write the same one.
    const int64_t panels = std::max<int64_t>(1, kPieceFloats / (kPanelRows * d.shape.cols));
    const int64_t step = panels * kPanelRows;
    for (int64_t row = 0; row < d.shape.rows; row += step) {
      pieces.push_back({&d, row, std::min(row + step, d.shape.rows)});
    }
  }
  return pieces;
}

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const WeightsOptions& options, std::vector<Piece> pieces)
      : checkpoint_(checkpoint), options_(options), pieces_(std::move(pieces)) {}

  absl::Status Run(ThreadPool* pool) {
    pool->RunOnAll([this](int thread) { Work(thread); });
    return status_;
  }

 private:
  void Work(int thread) {
    std::vector<float> buffer;
    int last_percent = -1;
    for (;;) {
      const size_t index = next_.fetch_add(1);
      if (index >= pieces_.size() || failed_) break;
      if (const absl::Status status = LoadPiece(pieces_[index], &buffer); !status.ok()) {
        const std::lock_guard lock(mutex_);
        if (status_.ok()) status_ = status;
        failed_ = true;
      }
      const int percent = static_cast<int>(100 * (index + 1) / pieces_.size());
      if (thread == 0 && percent != last_percent && options_.progress) {
        options_.progress(percent / 100.0);
        last_percent = percent;
      }
    }
    if (thread == 0 && !failed_ && last_percent != 100 && options_.progress) options_.progress(1);
  }

  absl::Status LoadPiece(const Piece& piece, std::vector<float>* buffer) const {
    const Destination& to = *piece.destination;
    const int64_t rows = piece.row_end - piece.row_begin;
    if (to.vector != nullptr) {
      // The arena gave this memory out as `const float*`; until loading ends it is ours to write.
      float* target = const_cast<float*>(*to.vector) + piece.row_begin * to.shape.cols;
      return checkpoint_.ReadRows(to.id, options_.tp_rank, options_.tp_size, piece.row_begin,
                                  piece.row_end, target);
    }
    buffer->resize(rows * to.shape.cols);
    RETURN_IF_ERROR(checkpoint_.ReadRows(to.id, options_.tp_rank, options_.tp_size, piece.row_begin,
                                         piece.row_end, buffer->data()));
    to.matrix->PackRows(piece.row_begin, rows, buffer->data());
    return absl::OkStatus();
  }

  const Checkpoint& checkpoint_;
  const WeightsOptions& options_;
  const std::vector<Piece> pieces_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  absl::Status status_;  // the first error; guarded by mutex_ while loading
};

}  // namespace

uint64_t WeightBytes(const ModelConfig& config, ComputeType type, int tp_size) {
  GptWeights unused;
  return TotalBytes(Destinations(config, tp_size, &unused), type);
}

absl::StatusOr<std::unique_ptr<GptWeights>> LoadWeights(const Checkpoint& checkpoint,
                                                        const WeightsOptions& options,
                                                        ThreadPool* pool) {
  const ModelConfig& config = checkpoint.config();
  RETURN_IF_ERROR(CheckTp(config, options.tp_size));
  auto weights = std::make_unique<GptWeights>();
  const std::vector<Destination> destinations =
      Destinations(config, options.tp_size, weights.get());
  ASSIGN_OR_RETURN(weights->arena, Arena::Create(TotalBytes(destinations, options.type)));
  for (const Destination& d : destinations) {
    if (d.matrix != nullptr) {
      ASSIGN_OR_RETURN(*d.matrix, PackedMatrix::Create(options.type, d.shape.rows, d.shape.cols,
                                                       weights->arena));
    } else {
      ASSIGN_OR_RETURN(std::byte* const memory,
                       weights->arena.Allocate(d.shape.size() * sizeof(float)));
      *d.vector = reinterpret_cast<const float*>(memory);
    }
  }
  RETURN_IF_ERROR(Loader(checkpoint, options, CutIntoPieces(destinations)).Run(pool));
  return weights;
}

}  // namespace hanlin
