// A step plan: what the leader decided that every rank computes in one forward pass. Small and
// flat, so that it crosses to the followers as one message: a header, then the arrays one after
// another.
//
// Serialised layout, native byte order, every field int32:
//   [0] kStepMagic  [1] tokens T  [2] sequences S  [3] block table B  [4] logit rows R
//   T token ids | S × {first_token, num_tokens, context_tokens, first_block, num_blocks} | B block
//   ids | R rows
#ifndef HANLIN_MODEL_FORWARD_STEP_H_
#define HANLIN_MODEL_FORWARD_STEP_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanlin {

// One sequence of a step: `num_tokens` new tokens behind `context_tokens` that are in the KV cache
// already. New token i stands at position context_tokens + i, and its keys and values go to block
// (context_tokens + i) / block size.
struct StepSequence {
  int32_t first_token;  // index of its first new token in StepBatch::tokens
  int32_t
      num_tokens;  // new tokens this step, at least 1: a decode step has 1, a prefill chunk more
  int32_t context_tokens;  // tokens already in the KV cache
  int32_t first_block;     // index of its first block id in StepBatch::block_table
  int32_t num_blocks;      // enough blocks for context_tokens + num_tokens
};

// Views; the arrays belong to the caller. The sequences tile `tokens` in order, without gaps. No
// two sequences may write the same block in a step; full blocks (a shared prefix) may be read by
// many.
struct StepBatch {
  std::span<const int32_t> tokens;          // ids of the new tokens, sequence after sequence
  std::span<const StepSequence> sequences;  // in the order of their tokens
  std::span<const int32_t> block_table;     // ids of KV blocks, in the order of the positions
  std::span<const int32_t> logit_rows;  // indices into tokens whose logits are wanted, ascending
};

// What a plan is checked against.
struct StepLimits {
  int32_t vocab_size;
  int32_t max_positions;
  int32_t num_blocks;
  int32_t block_tokens;
  // Ids -1 to -drawn_rows may stand in a plan: -1 - r means the id that row r of the step before
  // drew, which only the device knows yet.
  int32_t drawn_rows = 0;
};

// INVALID_ARGUMENT naming the first thing wrong: an index out of range, an id outside the
// vocabulary, a position beyond the context, too few blocks, tokens that the sequences do not tile.
absl::Status CheckStep(const StepBatch& batch, const StepLimits& limits);

// Appends the serialised plan to `out`.
void SerializeStep(const StepBatch& batch, std::vector<std::byte>* out);

// A view into `bytes` (aligned to 4). INVALID_ARGUMENT when the counts do not match the size;
// contents are not checked further (CheckStep).
absl::StatusOr<StepBatch> ParseStep(std::span<const std::byte> bytes);

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_STEP_H_
