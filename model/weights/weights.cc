// See weights.h. Pieces are whole panels of a matrix, so that no two threads write the same one.
#include "model/weights/weights.h"

#include "common/status/status.h"
#include "model/weights/walk.h"

namespace hanlin {
namespace {

constexpr int64_t kPieceValues = 256 << 10;  // 1 MiB of fp32 a thread

// A tensor and where it goes: into a packed matrix, or as it is into `vector`.
struct Destination {
  TensorId id;
  TensorShape shape;  // on this rank
  PackedMatrix* matrix = nullptr;
  const float** vector = nullptr;
};

std::vector<Destination> Destinations(const ModelConfig& config, int tp_size, GptWeights* weights) {
  std::vector<Destination> all;
  VisitWeights(
      config, weights,
      [&](TensorId id, PackedMatrix* to) {
        all.push_back({id, LocalShape(config, id.role, tp_size), to, nullptr});
      },
      [&](TensorId id, const float** to) {
        all.push_back({id, LocalShape(config, id.role, tp_size), nullptr, to});
      });
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

absl::Status Allocate(const Destination& to, ComputeType type, Arena& arena) {
  if (to.matrix != nullptr) {
    ASSIGN_OR_RETURN(*to.matrix, PackedMatrix::Create(type, to.shape.rows, to.shape.cols, arena));
  } else {
    ASSIGN_OR_RETURN(std::byte* const memory, arena.Allocate(to.shape.size() * sizeof(float)));
    *to.vector = reinterpret_cast<const float*>(memory);
  }
  return absl::OkStatus();
}

absl::Status LoadPiece(const Checkpoint& checkpoint, const WeightsOptions& options,
                       const Destination& to, const WeightPiece& piece,
                       std::vector<float>* buffer) {
  const int64_t rows = piece.row_end - piece.row_begin;
  const auto read = [&](float* target) {
    return checkpoint.ReadRows(to.id, options.tp_rank, options.tp_size, piece.row_begin,
                               piece.row_end, target);
  };
  // The arena gave a vector's memory out as `const float*`; until loading ends it is ours to write.
  if (to.vector != nullptr) {
    return read(const_cast<float*>(*to.vector) + piece.row_begin * to.shape.cols);
  }
  buffer->resize(rows * to.shape.cols);
  RETURN_IF_ERROR(read(buffer->data()));
  to.matrix->PackRows(piece.row_begin, rows, buffer->data());
  return absl::OkStatus();
}

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
  std::vector<TensorShape> shapes;
  for (const Destination& to : destinations) {
    RETURN_IF_ERROR(Allocate(to, options.type, weights->arena));
    shapes.push_back(to.shape);
  }
  std::vector<std::vector<float>> buffers(pool->num_threads());
  const auto sink = [&](const WeightPiece& piece, int thread) {
    return LoadPiece(checkpoint, options, destinations[piece.tensor], piece, &buffers[thread]);
  };
  RETURN_IF_ERROR(
      WalkPieces(CutIntoPieces(shapes, kPieceValues, kPanelRows), sink, options.progress, pool));
  return weights;
}

}  // namespace hanlin
