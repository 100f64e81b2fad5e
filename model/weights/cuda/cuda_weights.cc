// See cuda_weights.h.
#include "model/weights/cuda/cuda_weights.h"

#include <cstring>

#include "common/cuda/pinned.h"
#include "common/cuda/status.h"
#include "common/cuda/stream.h"
#include "model/weights/walk.h"

namespace hanlin {
namespace {

constexpr int64_t kPieceValues = 512 << 10;
constexpr uint64_t kAlignment = 256;
constexpr int kSlots = 2;  // pinned buffers of a thread

uint64_t RoundUp(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool IsBias(TensorRole role) {
  return role == TensorRole::kQkvBias || role == TensorRole::kAttnOutBias ||
         role == TensorRole::kMlpUpBias || role == TensorRole::kMlpDownBias;
}

// A tensor and where it goes, as offsets into the allocation.
struct Destination {
  TensorId id;
  TensorShape shape;  // on this rank
  CudaMatrix* matrix = nullptr;
  CudaVector* vector = nullptr;
  uint64_t offset = 0;
  uint64_t bf16_offset = 0;  // of a bias
};

std::vector<Destination> Destinations(const ModelConfig& config, ComputeType type, int tp_size,
                                      CudaWeights* weights, uint64_t* total) {
  std::vector<Destination> all;
  *total = 0;
  const auto take = [&](uint64_t bytes) {
    const uint64_t offset = *total;
    *total += RoundUp(bytes);
    return offset;
  };
  VisitWeights(
      config, weights,
      [&](TensorId id, CudaMatrix* to) {
        const TensorShape shape = LocalShape(config, id.role, tp_size);
        all.push_back(
            {.id = id, .shape = shape, .matrix = to, .offset = take(shape.size() * SizeOf(type))});
      },
      [&](TensorId id, CudaVector* to) {
        const TensorShape shape = LocalShape(config, id.role, tp_size);
        all.push_back({.id = id, .shape = shape, .vector = to, .offset = take(shape.size() * 4)});
        if (IsBias(id.role)) all.back().bf16_offset = take(shape.size() * sizeof(BFloat16));
      });
  return all;
}

void Bind(const Destination& to, std::byte* base) {
  if (to.matrix != nullptr) {
    *to.matrix = {base + to.offset, to.shape.rows, to.shape.cols};
    return;
  }
  to.vector->data = reinterpret_cast<const float*>(base + to.offset);
  if (IsBias(to.id.role)) {
    to.vector->bf16 = reinterpret_cast<const BFloat16*>(base + to.bf16_offset);
  }
}

// A thread's stream and pinned buffers, used in turn.
struct Lane {
  struct Slot {
    PinnedBuffer<std::byte> buffer;
    CudaEvent copied;
  };
  CudaStream stream;
  Slot slots[kSlots];
  int next = 0;
  std::vector<float> values;
};

class Uploader {
 public:
  Uploader(const Checkpoint& checkpoint, const WeightsOptions& options, const CudaDevice& device,
           std::byte* base, const std::vector<Destination>& destinations, int threads)
      : checkpoint_(checkpoint),
        options_(options),
        ordinal_(device.ordinal),
        base_(base),
        destinations_(destinations),
        lanes_(threads) {}

  absl::Status Upload(const WeightPiece& piece, int thread) {
    Lane& lane = lanes_[thread];
    if (lane.stream.get() == nullptr) RETURN_IF_ERROR(Open(&lane));
    const Destination& to = destinations_[piece.tensor];
    const int64_t count = (piece.row_end - piece.row_begin) * to.shape.cols;
    if (std::ssize(lane.values) < count) lane.values.resize(count);
    RETURN_IF_ERROR(checkpoint_.ReadRows(to.id, options_.tp_rank, options_.tp_size, piece.row_begin,
                                         piece.row_end, lane.values.data()));
    const int64_t first = piece.row_begin * to.shape.cols;
    const bool rounds = to.matrix != nullptr && options_.type == ComputeType::kBFloat16;
    if (!rounds) {
      RETURN_IF_ERROR(Copy(&lane, count, sizeof(float), base_ + to.offset + 4 * first));
    }
    if (rounds || IsBias(to.id.role)) {
      const uint64_t offset = rounds ? to.offset : to.bf16_offset;
      RETURN_IF_ERROR(Copy(&lane, count, sizeof(BFloat16), base_ + offset + 2 * first));
    }
    return absl::OkStatus();
  }

  absl::Status Finish() {
    for (Lane& lane : lanes_) {
      if (lane.stream.get() != nullptr) RETURN_IF_ERROR(lane.stream.Synchronize());
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Open(Lane* lane) {
    RETURN_IF_CUDA_ERROR(cudaSetDevice(ordinal_));  // of this thread
    for (Lane::Slot& slot : lane->slots) {
      ASSIGN_OR_RETURN(slot.copied, CudaEvent::Create());
    }
    ASSIGN_OR_RETURN(lane->stream, CudaStream::Create());
    return absl::OkStatus();
  }

  // The first `count` values, as fp32 or rounded to bf16, to the device.
  absl::Status Copy(Lane* lane, int64_t count, size_t value_bytes, std::byte* target) {
    Lane::Slot& slot = lane->slots[lane->next++ % kSlots];
    RETURN_IF_ERROR(slot.copied.Wait());
    const size_t bytes = count * value_bytes;
    if (slot.buffer.size() < bytes) {
      ASSIGN_OR_RETURN(slot.buffer,
                       PinnedBuffer<std::byte>::Create(std::max<size_t>(bytes, kPieceValues * 2)));
    }
    if (value_bytes == sizeof(float)) {
      std::memcpy(slot.buffer.data(), lane->values.data(), bytes);
    } else {
      auto* const to = reinterpret_cast<BFloat16*>(slot.buffer.data());
      for (int64_t i = 0; i < count; ++i) to[i] = ToBFloat16(lane->values[i]);
    }
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(target, slot.buffer.data(), bytes, cudaMemcpyHostToDevice,
                                         lane->stream.get()));
    return slot.copied.Record(lane->stream);
  }

  const Checkpoint& checkpoint_;
  const WeightsOptions& options_;
  const int ordinal_;
  std::byte* const base_;
  const std::vector<Destination>& destinations_;
  std::vector<Lane> lanes_;
};

}  // namespace

uint64_t CudaWeightBytes(const ModelConfig& config, ComputeType type, int tp_size) {
  CudaWeights unused;
  uint64_t total = 0;
  Destinations(config, type, tp_size, &unused, &total);
  return total;
}

absl::StatusOr<std::unique_ptr<CudaWeights>> LoadCudaWeights(const Checkpoint& checkpoint,
                                                             const WeightsOptions& options,
                                                             const CudaDevice& device,
                                                             ThreadPool* pool) {
  const ModelConfig& config = checkpoint.config();
  RETURN_IF_ERROR(CheckTp(config, options.tp_size));
  auto weights = std::make_unique<CudaWeights>();
  uint64_t total = 0;
  const std::vector<Destination> destinations =
      Destinations(config, options.type, options.tp_size, weights.get(), &total);
  ASSIGN_OR_RETURN(weights->memory, DeviceBuffer<std::byte>::Create(total));
  std::vector<TensorShape> shapes;
  for (const Destination& to : destinations) {
    Bind(to, weights->memory.data());
    shapes.push_back(to.shape);
  }
  Uploader uploader(checkpoint, options, device, weights->memory.data(), destinations,
                    pool->num_threads());
  const auto sink = [&](const WeightPiece& piece, int thread) {
    return uploader.Upload(piece, thread);
  };
  RETURN_IF_ERROR(WalkPieces(CutIntoPieces(shapes, kPieceValues, 1), sink, options.progress, pool));
  RETURN_IF_ERROR(uploader.Finish());
  return weights;
}

}  // namespace hanlin
