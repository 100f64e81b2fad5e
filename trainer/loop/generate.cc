// See generate.h.
#include "trainer/loop/generate.h"

#include <algorithm>
#include <numeric>

#include "common/status/status.h"
#include "model/train/collectives.h"

namespace hanlin {
namespace {

// A prompt and what has come of it.
struct Row {
  uint32_t prompt;  // number
  std::vector<int32_t> ids;
};

// One token for each row: padded on the right, which nothing before it sees.
TrainBatch Padded(std::span<const Row> rows) {
  TrainBatch batch = {.sequences = static_cast<int64_t>(rows.size())};
  for (const Row& row : rows) {
    batch.length = std::max(batch.length, static_cast<int64_t>(row.ids.size()));
  }
  const auto length = static_cast<size_t>(batch.length), tokens = rows.size() * length;
  batch.tokens.assign(tokens, 0);
  batch.labels.assign(tokens, 0);
  batch.weights.assign(tokens, 0);
  batch.positions.resize(tokens);
  for (size_t r = 0; r < rows.size(); ++r) {
    std::copy(rows[r].ids.begin(), rows[r].ids.end(),
              batch.tokens.begin() + static_cast<ptrdiff_t>(r * length));
    std::iota(batch.positions.begin() + static_cast<ptrdiff_t>(r * length),
              batch.positions.begin() + static_cast<ptrdiff_t>((r + 1) * length), 0);
  }
  return batch;
}

absl::Status Continue(TrainModel& model, const GenerateOptions& options, std::vector<Row> rows,
                      std::vector<std::vector<int32_t>>* results) {
  const ModelConfig& config = model.options().config;
  const auto vocabulary = static_cast<size_t>(config.vocab_size);
  Sampler sampler;
  std::vector<float> logits;
  for (int64_t made = 0; made < options.max_tokens && !rows.empty(); ++made) {
    const TrainBatch batch = Padded(rows);
    std::vector<int64_t> last;
    for (size_t r = 0; r < rows.size(); ++r) {
      last.push_back(static_cast<int64_t>(r) * batch.length +
                     static_cast<int64_t>(rows[r].ids.size()) - 1);
    }
    logits.resize(rows.size() * vocabulary);
    RETURN_IF_ERROR(model.Logits(batch, last, logits));
    std::vector<Row> going;
    for (size_t r = 0; r < rows.size(); ++r) {
      SamplingParams params = options.sampling;
      params.choice = rows[r].prompt;
      const int32_t id =
          sampler.Sample(std::span(logits).subspan(r * vocabulary, vocabulary), params,
                         {.ids = rows[r].ids, .position = rows[r].ids.size()});
      if (id == options.end_token) continue;
      (*results)[rows[r].prompt].push_back(id);
      rows[r].ids.push_back(id);
      if (static_cast<int64_t>(rows[r].ids.size()) > config.max_positions) continue;
      going.push_back(std::move(rows[r]));
    }
    rows = std::move(going);
  }
  return absl::OkStatus();
}

// Each rank has the results of its prompts and nothing for the others.
absl::Status Share(Communicator* data, int64_t max_tokens,
                   std::vector<std::vector<int32_t>>* results) {
  if (data == nullptr || data->size() == 1) return absl::OkStatus();
  const auto stride = static_cast<size_t>(max_tokens) + 1;
  std::vector<double> values(results->size() * stride);  // length, ids
  for (size_t i = 0; i < results->size(); ++i) {
    const std::vector<int32_t>& ids = (*results)[i];
    values[i * stride] = static_cast<double>(ids.size());
    std::copy(ids.begin(), ids.end(), values.begin() + static_cast<ptrdiff_t>(i * stride + 1));
  }
  RETURN_IF_ERROR(SumOverRanks(data, values));
  for (size_t i = 0; i < results->size(); ++i) {
    std::vector<int32_t>& ids = (*results)[i];
    ids.resize(static_cast<size_t>(values[i * stride]));
    for (size_t t = 0; t < ids.size(); ++t) {
      ids[t] = static_cast<int32_t>(values[i * stride + 1 + t]);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::vector<int32_t>>> Generate(
    TrainModel& model, std::span<const std::vector<int32_t>> prompts,
    const GenerateOptions& options) {
  const int64_t positions = model.options().config.max_positions;
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (!prompts[i].empty() && static_cast<int64_t>(prompts[i].size()) <= positions) continue;
    return InvalidArgument("prompt {} has {} tokens, want 1 to {}", i, prompts[i].size(),
                           positions);
  }
  Communicator* const data = model.options().data;
  const auto ranks = static_cast<size_t>(data == nullptr ? 1 : data->size());
  const auto rank = static_cast<size_t>(data == nullptr ? 0 : data->rank());
  const auto step = static_cast<size_t>(options.batch);
  std::vector<std::vector<int32_t>> results(prompts.size());
  for (size_t begin = rank * step; begin < prompts.size(); begin += ranks * step) {
    std::vector<Row> rows;
    for (size_t i = begin; i < std::min(begin + step, prompts.size()); ++i) {
      rows.push_back({static_cast<uint32_t>(i), prompts[i]});
    }
    RETURN_IF_ERROR(Continue(model, options, std::move(rows), &results));
  }
  RETURN_IF_ERROR(Share(data, options.max_tokens, &results));
  return results;
}

}  // namespace hanlin
