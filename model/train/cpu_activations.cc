// See cpu_activations.h.
#include "model/train/cpu_activations.h"

namespace hanlin {

CpuActivations::CpuActivations(const ModelConfig& config, int tp_size, Recompute recompute)
    : layers_(config.num_layers),
      hidden_size_(config.hidden_size),
      att_width_(config.hidden_size / tp_size),
      ffn_width_(config.ffn_size / tp_size) {
  const bool most = recompute != Recompute::kFull;
  const bool cheap = recompute == Recompute::kNone;
  using A = LayerActivations;
  fields_ = {
      {&A::mean1, 1, most},
      {&A::rstd1, 1, most},
      {&A::ln1, hidden_size_, cheap},
      {&A::qkv, 3 * att_width_, most},
      {&A::log_sum, config.num_heads / tp_size, most},
      {&A::att, att_width_, most},
      {&A::x1, hidden_size_, most},
      {&A::mean2, 1, most},
      {&A::rstd2, 1, most},
      {&A::ln2, hidden_size_, cheap},
      {&A::up, ffn_width_, most},
      {&A::act, ffn_width_, cheap},
  };
  storage_.resize(fields_.size());
}

void CpuActivations::Prepare(int64_t tokens, bool keep) {
  tokens_ = tokens;
  keep_ = keep;
  const auto reserve = [](std::vector<float>& buffer, int64_t size) {
    if (static_cast<int64_t>(buffer.size()) < size) {
      buffer = {};  // before the new one, not beside it
      buffer.resize(size);
    }
  };
  for (size_t i = 0; i < fields_.size(); ++i) {
    reserve(storage_[i], tokens * fields_[i].width * (keep && fields_[i].kept ? layers_ : 1));
  }
  reserve(inputs_, tokens * hidden_size_ * (keep ? layers_ + 1 : 2));
  for (auto& buffer : hidden_) reserve(buffer, tokens * hidden_size_);
  reserve(statistics_, 2 * tokens);
  if (!keep) return;
  reserve(dqkv_, tokens * 3 * att_width_);
  reserve(datt_, tokens * att_width_);
  reserve(dup_, tokens * ffn_width_);
}

int64_t CpuActivations::Bytes(int64_t tokens) const {
  int64_t width = hidden_size_ * (layers_ + 1 + kHiddenBuffers) + 2 + 4 * att_width_ + ffn_width_;
  for (const Field& field : fields_) width += field.width * (field.kept ? layers_ : 1);
  return tokens * width * static_cast<int64_t>(sizeof(float));
}

LayerActivations CpuActivations::Layer(int layer) {
  LayerActivations result = {};
  for (size_t i = 0; i < fields_.size(); ++i) {
    const int64_t index = keep_ && fields_[i].kept ? layer : 0;
    result.*fields_[i].pointer = storage_[i].data() + index * tokens_ * fields_[i].width;
  }
  result.x = inputs_.data() + (keep_ ? layer : layer % 2) * tokens_ * hidden_size_;
  return result;
}

float* CpuActivations::final_x() {
  return inputs_.data() + (keep_ ? layers_ : layers_ % 2) * tokens_ * hidden_size_;
}

}  // namespace hanlin
