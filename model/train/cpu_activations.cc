// See cpu_activations.h.
#include "model/train/cpu_activations.h"

#include <algorithm>

namespace hanlin {

CpuActivations::CpuActivations(const ModelConfig& config, int tp_size, ComputeType operands,
                               Recompute recompute)
    : layers_(config.num_layers),
      hidden_size_(config.hidden_size),
      operands_(operands),
      att_width_(config.hidden_size / tp_size),
      ffn_width_(config.ffn_size / tp_size) {
  const bool most = recompute != Recompute::kFull;
  const bool cheap = recompute == Recompute::kNone;
  using A = LayerActivations;
  fields_ = {
      {&A::mean1, nullptr, 1, most},
      {&A::rstd1, nullptr, 1, most},
      {nullptr, &A::ln1, hidden_size_, cheap},
      {nullptr, &A::qkv, 3 * att_width_, most},
      {&A::log_sum, nullptr, config.num_heads / tp_size, most},
      {nullptr, &A::att, att_width_, most},
      {&A::x1, nullptr, hidden_size_, most},
      {&A::mean2, nullptr, 1, most},
      {&A::rstd2, nullptr, 1, most},
      {nullptr, &A::ln2, hidden_size_, cheap},
      {nullptr, &A::up, ffn_width_, most},
      {nullptr, &A::act, ffn_width_, cheap},
  };
  storage_.resize(fields_.size());
}

int64_t CpuActivations::DyWidth() const { return std::max(3 * att_width_, hidden_size_); }

void CpuActivations::Prepare(int64_t tokens, bool keep) {
  tokens_ = tokens;
  keep_ = keep;
  const auto reserve = [](auto& buffer, size_t size) {
    if (buffer.size() < size) {
      buffer = {};  // before the new one, not beside it
      buffer.resize(size);
    }
  };
  for (size_t i = 0; i < fields_.size(); ++i) {
    reserve(storage_[i], tokens * TokenBytes(fields_[i]) * (keep && fields_[i].kept ? layers_ : 1));
  }
  reserve(inputs_, tokens * hidden_size_ * (keep ? layers_ + 1 : 2));
  for (auto& buffer : hidden_) reserve(buffer, tokens * hidden_size_);
  reserve(statistics_, 2 * tokens);
  if (!keep) return;
  reserve(datt_, tokens * att_width_);
  reserve(dup_, OperandBytes(tokens * ffn_width_));
  reserve(dy_, OperandBytes(tokens * DyWidth()));
}

int64_t CpuActivations::Bytes(int64_t tokens) const {
  const int64_t floats = hidden_size_ * (layers_ + 1 + kHiddenBuffers) + 2 + att_width_;
  size_t bytes = floats * sizeof(float) + OperandBytes(ffn_width_ + DyWidth());
  for (const Field& field : fields_) bytes += TokenBytes(field) * (field.kept ? layers_ : 1);
  return tokens * static_cast<int64_t>(bytes);
}

LayerActivations CpuActivations::Layer(int layer) {
  LayerActivations result = {};
  for (size_t i = 0; i < fields_.size(); ++i) {
    const Field& field = fields_[i];
    const int64_t index = keep_ && field.kept ? layer : 0;
    std::byte* const data = storage_[i].data() + index * tokens_ * TokenBytes(field);
    if (field.operand != nullptr) {
      result.*field.operand = {data, operands_};
    } else {
      result.*field.numbers = reinterpret_cast<float*>(data);
    }
  }
  result.x = inputs_.data() + (keep_ ? layer : layer % 2) * tokens_ * hidden_size_;
  return result;
}

float* CpuActivations::final_x() {
  return inputs_.data() + (keep_ ? layers_ : layers_ % 2) * tokens_ * hidden_size_;
}

}  // namespace hanlin
