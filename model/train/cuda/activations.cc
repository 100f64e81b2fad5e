// See activations.h.
#include "model/train/cuda/activations.h"

#include <algorithm>

#include "model/train/cuda/memory.h"

namespace hanlin {
namespace {

size_t Padded(size_t bytes) {
  constexpr size_t kAlignment = 256;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Hands out parts of an allocation, each aligned.
class Cursor {
 public:
  explicit Cursor(std::byte* base) : base_(base) {}
  template <typename T = std::byte>
  T* Take(size_t count) {
    const size_t begin = used_;
    used_ += Padded(count * sizeof(T));
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + begin);
  }
  size_t used() const { return used_; }

 private:
  std::byte* const base_;
  size_t used_ = 0;
};

CudaBatch LayOut(Cursor& cursor, int64_t tokens) {
  return {.tokens = cursor.Take<int32_t>(tokens),
          .positions = cursor.Take<int32_t>(tokens),
          .document_begin = cursor.Take<int32_t>(tokens),
          .rows = cursor.Take<int32_t>(tokens),
          .place = cursor.Take<int32_t>(tokens),
          .labels = cursor.Take<int32_t>(tokens),
          .weights = cursor.Take<float>(tokens),
          .token_order = cursor.Take<int32_t>(tokens),
          .position_order = cursor.Take<int32_t>(tokens)};
}

}  // namespace

CudaBatch CudaBatchAt(std::byte* base, int64_t tokens) {
  Cursor cursor(base);
  return LayOut(cursor, tokens);
}

size_t CudaBatchBytes(int64_t tokens) {
  Cursor cursor(nullptr);
  LayOut(cursor, tokens);
  return cursor.used();
}

CudaActivations::CudaActivations(const TrainModelOptions& options, ComputeType type,
                                 int64_t sequences, int64_t length, bool keep, std::byte* base)
    : layers_(options.config.num_layers), keep_(keep) {
  const ModelConfig& config = options.config;
  const int tp = options.tensor == nullptr ? 1 : options.tensor->size();
  const bool most = options.recompute != Recompute::kFull;
  const bool cheap = options.recompute == Recompute::kNone;
  const size_t typed = SizeOf(type), tokens = sequences * length;
  const size_t attention = typed * (config.hidden_size / tp);
  const size_t ffn = typed * (config.ffn_size / tp);
  hidden_bytes_ = Padded(tokens * typed * config.hidden_size);
  fields_[kLn1] = {hidden_bytes_, cheap};
  fields_[kQkv] = {Padded(tokens * 3 * attention), most};
  fields_[kAtt] = {Padded(tokens * attention), most};
  fields_[kX1] = {hidden_bytes_, most};
  fields_[kLn2] = {hidden_bytes_, cheap};
  fields_[kUp] = {Padded(tokens * ffn), most};
  fields_[kAct] = {Padded(tokens * ffn), cheap};
  for (const int field : {kMean1, kRstd1, kMean2, kRstd2}) {
    fields_[field] = {Padded(tokens * sizeof(float)), most};
  }
  fields_[kLogSum] = {Padded(tokens * sizeof(float) * (config.num_heads / tp)), most};

  Cursor cursor(base);
  for (Field& field : fields_) {
    field.base = cursor.Take(field.bytes * (keep && field.kept ? layers_ : 1));
  }
  inputs_ = cursor.Take(hidden_bytes_ * (keep ? layers_ + 1 : 2));
  for (std::byte*& buffer : hidden) buffer = cursor.Take(hidden_bytes_);
  if (keep) {
    dqkv = cursor.Take(3 * tokens * attention);
    datt = cursor.Take(tokens * attention);
    dup = cursor.Take(tokens * ffn);
  }
  mean = cursor.Take<float>(tokens);
  rstd = cursor.Take<float>(tokens);
  if (tp > 1 && type != ComputeType::kFloat32) {
    sums = cursor.Take<float>(tokens * config.hidden_size);
  }
  workspace = cursor.Take(TrainWorkspaceBytes(options, type, sequences, length));
  const size_t rows = std::min<size_t>(tokens, kClassifierRows);
  logits_bytes_ = rows * (config.vocab_size / tp) * typed;
  logits = cursor.Take(logits_bytes_);
  stats = cursor.Take<CrossEntropyStat>(rows * tp);
  log_sum = cursor.Take<float>(rows);
  losses = cursor.Take<float>(tokens);
  batch = cursor.Take(CudaBatchBytes(sequences * length));
  bytes_ = cursor.used();
}

std::byte* CudaActivations::Of(int field, int layer) const {
  const Field& f = fields_[field];
  return f.base + (keep_ && f.kept ? layer : 0) * f.bytes;
}

CudaLayerActivations CudaActivations::Layer(int layer) const {
  const auto floats = [&](int field) { return reinterpret_cast<float*>(Of(field, layer)); };
  return {.x = inputs_ + (keep_ ? layer : layer % 2) * hidden_bytes_,
          .ln1 = Of(kLn1, layer),
          .qkv = Of(kQkv, layer),
          .att = Of(kAtt, layer),
          .x1 = Of(kX1, layer),
          .ln2 = Of(kLn2, layer),
          .up = Of(kUp, layer),
          .act = Of(kAct, layer),
          .mean1 = floats(kMean1),
          .rstd1 = floats(kRstd1),
          .mean2 = floats(kMean2),
          .rstd2 = floats(kRstd2),
          .log_sum = floats(kLogSum)};
}

std::byte* CudaActivations::final_x() const {
  return inputs_ + (keep_ ? layers_ : layers_ % 2) * hidden_bytes_;
}

}  // namespace hanlin
