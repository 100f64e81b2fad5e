// See step.h.
#include "model/forward/step.h"

#include <cstring>

#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr int32_t kStepMagic = 0x53504e48;  // "HNPS"
constexpr size_t kHeaderInts = 5;
static_assert(sizeof(StepSequence) == 5 * sizeof(int32_t));

template <typename T>
void Append(std::span<const T> items, std::vector<std::byte>* out) {
  const auto bytes = std::as_bytes(items);
  out->insert(out->end(), bytes.begin(), bytes.end());
}

absl::Status CheckSequence(const StepBatch& batch, size_t index, int64_t first_token,
                           const StepLimits& limits) {
  const StepSequence& s = batch.sequences[index];
  if (s.num_tokens < 1 || s.context_tokens < 0 || s.first_token != first_token) {
    return InvalidArgument("sequence {}: {} tokens from {} behind {}, want at least 1 from {}",
                           index, s.num_tokens, s.first_token, s.context_tokens, first_token);
  }
  const int64_t end = int64_t{s.context_tokens} + s.num_tokens;
  if (end > limits.max_positions) {
    return InvalidArgument("sequence {} reaches {} positions, the context holds {}", index, end,
                           limits.max_positions);
  }
  const int64_t blocks = (end + limits.block_tokens - 1) / limits.block_tokens;
  if (s.num_blocks < blocks || s.first_block < 0 ||
      int64_t{s.first_block} + s.num_blocks > std::ssize(batch.block_table)) {
    return InvalidArgument("sequence {}: blocks {}+{} of a table of {}, want {} for {} positions",
                           index, s.first_block, s.num_blocks, batch.block_table.size(), blocks,
                           end);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStep(const StepBatch& batch, const StepLimits& limits) {
  for (const int32_t id : batch.tokens) {
    if (id < -limits.drawn_rows || id >= limits.vocab_size) {
      return InvalidArgument("token id {}, want one in [{}, {})", id, -limits.drawn_rows,
                             limits.vocab_size);
    }
  }
  for (const int32_t block : batch.block_table) {
    if (block < 0 || block >= limits.num_blocks) {
      return InvalidArgument("KV block {}, want one in [0, {})", block, limits.num_blocks);
    }
  }
  int64_t first_token = 0;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    RETURN_IF_ERROR(CheckSequence(batch, i, first_token, limits));
    first_token += batch.sequences[i].num_tokens;
  }
  if (first_token != std::ssize(batch.tokens)) {
    return InvalidArgument("the sequences hold {} tokens, the step {}", first_token,
                           batch.tokens.size());
  }
  int32_t previous = -1;
  for (const int32_t row : batch.logit_rows) {
    if (row <= previous || row >= std::ssize(batch.tokens)) {
      return InvalidArgument("logit row {} after {}, want ascending ones below {}", row, previous,
                             batch.tokens.size());
    }
    previous = row;
  }
  return absl::OkStatus();
}

void SerializeStep(const StepBatch& batch, std::vector<std::byte>* out) {
  const int32_t header[kHeaderInts] = {kStepMagic, static_cast<int32_t>(batch.tokens.size()),
                                       static_cast<int32_t>(batch.sequences.size()),
                                       static_cast<int32_t>(batch.block_table.size()),
                                       static_cast<int32_t>(batch.logit_rows.size())};
  Append(std::span<const int32_t>(header), out);
  Append(batch.tokens, out);
  Append(batch.sequences, out);
  Append(batch.block_table, out);
  Append(batch.logit_rows, out);
}

absl::StatusOr<StepBatch> ParseStep(std::span<const std::byte> bytes) {
  int32_t header[kHeaderInts];
  if (bytes.size() < sizeof(header) || bytes.size() % sizeof(int32_t) != 0) {
    return InvalidArgument("step plan of {} bytes, want whole words and at least {}", bytes.size(),
                           sizeof(header));
  }
  std::memcpy(header, bytes.data(), sizeof(header));
  const auto [magic, tokens, sequences, blocks, rows] = header;
  int64_t words = kHeaderInts;
  for (const int32_t count : {tokens, blocks, rows}) words += count;
  words += 5 * int64_t{sequences};
  if (magic != kStepMagic || tokens < 0 || sequences < 0 || blocks < 0 || rows < 0 ||
      words * 4 != std::ssize(bytes)) {
    return InvalidArgument("step plan of {} bytes, its header (magic {:#x}) says {}", bytes.size(),
                           magic, words * 4);
  }
  const auto* ints = reinterpret_cast<const int32_t*>(bytes.data()) + kHeaderInts;
  StepBatch batch;
  batch.tokens = {ints, static_cast<size_t>(tokens)};
  ints += tokens;
  batch.sequences = {reinterpret_cast<const StepSequence*>(ints), static_cast<size_t>(sequences)};
  ints += 5 * int64_t{sequences};
  batch.block_table = {ints, static_cast<size_t>(blocks)};
  batch.logit_rows = {ints + blocks, static_cast<size_t>(rows)};
  return batch;
}

}  // namespace hanlin
