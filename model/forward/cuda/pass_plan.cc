// See pass_plan.h.
#include "model/forward/cuda/pass_plan.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace hanlin {
namespace {

constexpr size_t kAlignment = 16;

size_t RoundUp(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Hands out the arrays one after another.
class Cursor {
 public:
  explicit Cursor(std::byte* base) : at_(reinterpret_cast<uintptr_t>(base)) {}
  template <typename T>
  void Take(size_t count, T** out) {
    *out = reinterpret_cast<T*>(at_);  // NOLINT(performance-no-int-to-ptr)
    at_ += RoundUp(count * sizeof(T));
  }

 private:
  uintptr_t at_;  // a number, since FixedBytes has no memory behind it
};

bool HasPenalties(const SampleSlot& slot) {
  return slot.repetition_penalty != 1.0f || slot.presence_penalty != 0.0f ||
         slot.frequency_penalty != 0.0f;
}

}  // namespace

PassView ViewOf(std::byte* base, const PassShape& shape) {
  PassView view;
  view.base = base;
  Cursor cursor(base);
  cursor.Take(shape.tokens, &view.ids);
  cursor.Take(shape.tokens, &view.positions);
  cursor.Take(shape.decode_rows, &view.context);
  cursor.Take(shape.segments, &view.segments);
  cursor.Take(shape.logit_rows, &view.row_index);
  cursor.Take(shape.logit_rows, &view.row_slots);
  cursor.Take(shape.logit_rows, &view.sample_positions);
  cursor.Take(shape.logit_rows, &view.slots);
  cursor.Take(static_cast<size_t>(shape.decode_rows + shape.segments) * shape.table_stride,
              &view.tables);
  cursor.Take(0, &view.extra);
  return view;
}

size_t FixedBytes(const PassShape& shape) {
  return reinterpret_cast<uintptr_t>(ViewOf(nullptr, shape).extra);
}

PassShape ShapeOf(const Pass& pass, int32_t table_stride, bool decode_kernel) {
  PassShape shape{.tokens = static_cast<int32_t>(pass.tokens.size()),
                  .logit_rows = static_cast<int32_t>(pass.logit_rows.size()),
                  .table_stride = table_stride};
  const auto chunk = std::ranges::find_if(pass.segments, [&](const AttentionSegment& segment) {
    return segment.rows != 1 || !decode_kernel;
  });
  shape.decode_rows = static_cast<int32_t>(chunk - pass.segments.begin());
  shape.segments = static_cast<int32_t>(pass.segments.end() - chunk);
  return shape;
}

int32_t FillPass(const Pass& pass, int32_t block_tokens, const PassShape& shape,
                 const PassView& view) {
  const auto fill = [](std::span<const int32_t> from, int32_t count, int32_t padding, int32_t* to) {
    std::ranges::copy(from, to);
    std::fill(to + from.size(), to + count, padding);
  };
  fill(pass.tokens, shape.tokens, 0, view.ids);
  fill(pass.positions, shape.tokens, -1, view.positions);
  fill(pass.logit_rows, shape.logit_rows, -1, view.row_index);

  std::fill(view.context, view.context + shape.decode_rows, -1);
  std::fill(view.segments, view.segments + shape.segments, PrefillSegment{});
  int32_t row = 0, chunk = 0, max_tokens = 0;
  for (const AttentionSegment& segment : pass.segments) {
    int32_t table_row = shape.decode_rows + chunk;
    const auto tokens = static_cast<int32_t>(segment.rows);
    const auto position = static_cast<int32_t>(segment.first_position);
    if (row < shape.decode_rows && tokens == 1 && chunk == 0) {
      view.context[row] = position;
      table_row = row++;
    } else {
      view.segments[chunk] = {.first_token = static_cast<int32_t>(segment.first_row),
                              .num_tokens = tokens,
                              .context_tokens = position,
                              .sequence = chunk};
      ++chunk;
      max_tokens = std::max(max_tokens, tokens);
    }
    const int32_t blocks = (position + tokens + block_tokens - 1) / block_tokens;
    std::copy_n(segment.block_table, blocks,
                view.tables + static_cast<size_t>(table_row) * shape.table_stride);
  }
  return max_tokens;
}

size_t ExtraBytes(std::span<const CudaSampleRow> samples) {
  size_t bytes = 0;
  for (const CudaSampleRow& sample : samples) {
    bytes += sample.logit_bias.size() * sizeof(SampleBias);
    bytes += sample.banned.size() * sizeof(int32_t);
    if (HasPenalties(sample.slot)) bytes += sample.ids.size() * sizeof(int32_t);
  }
  return bytes;
}

size_t FillSamples(std::span<const CudaSampleRow> samples, const PassShape& shape,
                   const PassView& view, std::vector<CountedRow>* counted) {
  auto* bias = reinterpret_cast<SampleBias*>(view.extra);
  for (size_t row = 0; row < samples.size(); ++row) {
    const CudaSampleRow& sample = samples[row];
    SampleSlot& slot = view.slots[row] = sample.slot;
    view.row_slots[row] = static_cast<int32_t>(row);
    view.sample_positions[row] = sample.position;
    slot.bias_begin = static_cast<int32_t>(bias - reinterpret_cast<SampleBias*>(view.extra));
    slot.bias_count = static_cast<int32_t>(sample.logit_bias.size());
    for (const LogitBias& entry : sample.logit_bias) *bias++ = {entry.id, entry.bias};
  }
  std::fill(view.row_slots + samples.size(), view.row_slots + shape.logit_rows, -1);
  std::fill(view.sample_positions + samples.size(), view.sample_positions + shape.logit_rows, 0);
  // Banned ids and ids to count are int32 behind the biases, indexed from the same base.
  const auto* const base = reinterpret_cast<const int32_t*>(view.extra);
  auto* next = reinterpret_cast<int32_t*>(bias);
  for (size_t row = 0; row < samples.size(); ++row) {
    const CudaSampleRow& sample = samples[row];
    SampleSlot& slot = view.slots[row];
    slot.banned_begin = static_cast<int32_t>(next - base);
    slot.banned_count = static_cast<int32_t>(sample.banned.size());
    slot.banned_before = std::numeric_limits<int32_t>::max();
    next = std::ranges::copy(sample.banned, next).out;
    slot.counts_row = -1;
    if (!HasPenalties(slot)) continue;
    slot.counts_row = static_cast<int32_t>(row);
    counted->push_back({static_cast<int32_t>(row), static_cast<size_t>(next - base) * sizeof(*next),
                        static_cast<int32_t>(sample.ids.size())});
    next = std::ranges::copy(sample.ids, next).out;
  }
  return static_cast<size_t>(next - base) * sizeof(*next);
}

}  // namespace hanlin
