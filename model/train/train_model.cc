// What all devices share: checks of batches, loading of parameters, and the CPU model's maker.
#include "model/train/train_model.h"

#include "common/status/status.h"
#include "kernels/attention/cpu/causal_attention.h"
#include "model/train/cpu_model.h"

namespace hanlin {

absl::Status CheckBatch(const ModelConfig& config, const TrainBatch& b) {
  if (b.sequences < 1 || b.length < 1 || b.length > kMaxTrainLength ||
      b.sequences > (int64_t{1} << 31) / b.length) {
    return InvalidArgument("a batch of {} sequences of {} tokens, want at least 1 of each",
                           b.sequences, b.length);
  }
  const auto tokens = static_cast<size_t>(b.sequences * b.length);
  if (b.tokens.size() != tokens || b.labels.size() != tokens || b.positions.size() != tokens ||
      b.weights.size() != tokens ||
      (!b.document_begin.empty() && b.document_begin.size() != tokens)) {
    return InvalidArgument("the arrays of a batch differ in length, want {} elements", tokens);
  }
  for (size_t i = 0; i < tokens; ++i) {
    for (const int32_t id : {b.tokens[i], b.labels[i]}) {
      if (id < 0 || id >= config.vocab_size) {
        return InvalidArgument("token id {} at position {} of sequence {}, want [0, {})", id,
                               i % b.length, i / b.length, config.vocab_size);
      }
    }
    if (b.positions[i] < 0 || b.positions[i] >= config.max_positions) {
      return InvalidArgument("position {} in sequence {}, want [0, {})", b.positions[i],
                             i / b.length, config.max_positions);
    }
    if (!b.document_begin.empty() &&
        (b.document_begin[i] < 0 || b.document_begin[i] > static_cast<int64_t>(i) % b.length)) {
      return InvalidArgument("token {} of sequence {} belongs to a document that begins at {}",
                             i % b.length, i / b.length, b.document_begin[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status LoadParameters(const Checkpoint& checkpoint, TrainModel& model) {
  const Communicator* const tensor = model.options().tensor;
  const int rank = tensor == nullptr ? 0 : tensor->rank();
  const int size = tensor == nullptr ? 1 : tensor->size();
  std::vector<float> values;
  for (const ParameterSlot& slot : model.layout().slots()) {
    values.resize(slot.shape.size());
    RETURN_IF_ERROR(checkpoint.Read(slot.id, rank, size, values.data()));
    RETURN_IF_ERROR(model.WriteState(TrainState::kParameters, slot.offset, values));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TrainModel>> MakeCpuTrainModel(const TrainModelOptions& options,
                                                              ThreadPool& pool) {
  RETURN_IF_ERROR(CheckTp(options.config, options.tensor == nullptr ? 1 : options.tensor->size()));
  return std::make_unique<CpuTrainModel>(options, pool);
}

}  // namespace hanlin
