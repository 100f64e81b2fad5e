// See batches.h.
#include "trainer/data/batches.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/sampling/philox.h"

namespace hanlin {
namespace {

constexpr int64_t kLengthStep = 32;      // padded lengths under batch.tokens
constexpr int64_t kCudaLengthStep = 16;  // of BatchOptions

// Fisher and Yates with numbers that the standard defines, so every machine shuffles alike.
template <typename T>
void Shuffle(std::span<T> items, std::mt19937_64& engine) {
  for (size_t i = items.size(); i > 1; --i) {
    const auto j = static_cast<size_t>((static_cast<unsigned __int128>(engine()) * i) >> 64);
    std::swap(items[i - 1], items[j]);
  }
}

// Cuts samples in the given order into steps.
std::vector<SampleIndices> CutSteps(const TrainConfig& config, const SampleRules& rules,
                                    const SampleStore& samples, std::span<const uint32_t> order) {
  std::vector<SampleIndices> steps;
  SampleIndices current;
  int64_t longest = 0;
  for (const uint32_t index : order) {
    const int64_t length =
        (InputLength(rules, samples[index]) + kLengthStep) / kLengthStep * kLengthStep;
    const int64_t padded = std::max(longest, length) * (static_cast<int64_t>(current.size()) + 1);
    const bool full = config.batch.tokens > 0
                          ? padded > config.batch.tokens
                          : static_cast<int64_t>(current.size()) == config.batch.size;
    if (full && !current.empty()) {
      steps.push_back(std::move(current));
      current.clear();
      longest = 0;
    }
    current.push_back(index);
    longest = std::max(longest, length);
  }
  if (!current.empty()) steps.push_back(std::move(current));
  return steps;
}

// Adds a sample to a row. Where padding follows in the row (`padded`), upstream feeds the end
// token, too: the first padding label is predicted from it.
void AppendSample(const SampleRules& rules, const SampleView& sample, float weight, int64_t row,
                  int64_t offset, bool padded, TrainBatch* batch) {
  const std::vector<int32_t> stream = Stream(rules, sample);
  const Counted counted = CountedLabels(rules, sample);
  const auto length = static_cast<int64_t>(stream.size()) - 1;
  for (int64_t t = 0; t < length; ++t) {
    const int64_t at = row * batch->length + offset + t;
    batch->tokens[at] = stream[t];
    batch->labels[at] = stream[t + 1];
    batch->positions[at] = static_cast<int32_t>(t);
    batch->weights[at] = t >= counted.begin && t < counted.end ? weight : 0;
    if (!batch->document_begin.empty()) batch->document_begin[at] = static_cast<int32_t>(offset);
  }
  if (padded && length < batch->length) batch->tokens[row * batch->length + length] = stream.back();
}

// Where a sample goes.
struct Place {
  SampleView view;
  int64_t row, offset;
};
struct Layout {
  std::vector<Place> places;
  int64_t rows, length;
};

Layout LayOut(const SampleRules& rules, const BatchOptions& options, const SampleStore& samples,
              std::span<const uint32_t> indices) {
  std::vector<Place> places;
  int64_t row = -1, filled = 0, longest = 1;
  for (const uint32_t index : indices) {
    const SampleView view = TrainedView(options, samples, index);
    const int64_t length = InputLength(rules, view);
    const bool fits = options.packing && row >= 0 && filled + length < rules.sequence_length;
    if (!fits) {
      ++row;
      filled = 0;
    }
    places.push_back({view, row, filled});
    filled += length;
    longest = std::max(longest, filled);
  }
  const int64_t most = rules.sequence_length - 1;
  const int64_t steps = (longest + options.length_step - 1) / options.length_step;
  return {std::move(places), std::max<int64_t>(1, row + 1),
          options.full_length ? most : std::min(most, steps * options.length_step)};
}

}  // namespace

std::vector<SampleIndices> PlanEpoch(const TrainConfig& config, const SampleRules& rules,
                                     const SampleStore& samples, int64_t epoch) {
  std::vector<uint32_t> order(samples.size());
  std::iota(order.begin(), order.end(), 0u);
  std::mt19937_64 engine(static_cast<uint64_t>(config.seed) * 0x9e3779b97f4a7c15u +
                         static_cast<uint64_t>(epoch));
  if (config.data.shuffle) Shuffle(std::span(order), engine);
  if (config.data.bucket == 0) return CutSteps(config, rules, samples, order);
  std::vector<SampleIndices> steps;
  const auto window = static_cast<size_t>(config.data.bucket);
  for (size_t begin = 0; begin < order.size(); begin += window) {
    const auto part = std::span(order).subspan(begin, std::min(window, order.size() - begin));
    std::stable_sort(part.begin(), part.end(), [&](uint32_t a, uint32_t b) {
      return InputLength(rules, samples[a]) < InputLength(rules, samples[b]);
    });
    std::vector<SampleIndices> cut = CutSteps(config, rules, samples, part);
    if (config.data.shuffle) Shuffle(std::span(cut), engine);
    std::move(cut.begin(), cut.end(), std::back_inserter(steps));
  }
  return steps;
}

std::span<const uint32_t> ShareOf(std::span<const uint32_t> samples, int rank, int size) {
  const size_t begin = samples.size() * static_cast<size_t>(rank) / static_cast<size_t>(size);
  const size_t end = samples.size() * static_cast<size_t>(rank + 1) / static_cast<size_t>(size);
  return samples.subspan(begin, end - begin);
}

int64_t LengthStep(const TrainConfig& config) {
  return config.compute.device == "cuda" ? kCudaLengthStep : 1;
}

SampleView TrainedView(const BatchOptions& options, const SampleStore& samples, uint32_t index) {
  SampleView view = samples[index];
  if (options.drop_source == 0 || !view.has_target || view.target.empty()) return view;
  const auto words =
      Philox4x32({index, static_cast<uint32_t>(options.epoch), 0x64726f70u, 0},
                 {static_cast<uint32_t>(options.seed), static_cast<uint32_t>(options.seed >> 32)});
  if (words[0] * 0x1p-32 < options.drop_source) view.source = {};
  return view;
}

int64_t CountLabels(const SampleRules& rules, const BatchOptions& options,
                    const SampleStore& samples, std::span<const uint32_t> indices) {
  int64_t count = 0;
  for (const uint32_t index : indices) {
    count += CountedLabels(rules, TrainedView(options, samples, index)).size();
  }
  return count;
}

BatchShape ShapeOf(const SampleRules& rules, const BatchOptions& options,
                   const SampleStore& samples, std::span<const uint32_t> indices) {
  const Layout layout = LayOut(rules, options, samples, indices);
  return {layout.rows, layout.length};
}

TrainBatch MakeBatch(const SampleRules& rules, const BatchOptions& options,
                     const SampleStore& samples, std::span<const uint32_t> indices, float weight) {
  const Layout layout = LayOut(rules, options, samples, indices);
  TrainBatch batch = {.sequences = layout.rows, .length = layout.length};
  const auto tokens = static_cast<size_t>(batch.sequences * batch.length);
  batch.tokens.assign(tokens, 0);
  batch.labels.assign(tokens, 0);
  batch.weights.assign(tokens, 0);
  batch.positions.resize(tokens);
  for (size_t i = 0; i < tokens; ++i) {
    batch.positions[i] = static_cast<int32_t>(i % static_cast<size_t>(batch.length));
  }
  // Padding belongs to the first document; nothing looks at it.
  if (options.packing) batch.document_begin.assign(tokens, 0);
  for (const Place& place : layout.places) {
    AppendSample(rules, place.view, weight, place.row, place.offset,
                 options.full_length && !options.packing, &batch);
  }
  return batch;
}

}  // namespace hanlin
