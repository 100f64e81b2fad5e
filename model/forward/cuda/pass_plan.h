// What the host tells the device about one pass through the layers: ids, positions, block tables,
// rows whose logits are wanted and how tokens are drawn from them. All arrays lie in one buffer in
// a fixed order, so that a pass is told by one copy; a PassView finds them in the host's buffer and
// in the device's alike. The offsets depend on the PassShape alone, so a graph captured for a shape
// stays valid. Pure functions on plain memory.
//
// Rows of a pass: first the decode rows (one new token of a sequence), then the tokens of the
// segments (chunks of prompts).
#ifndef HANLIN_MODEL_FORWARD_CUDA_PASS_PLAN_H_
#define HANLIN_MODEL_FORWARD_CUDA_PASS_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/sampling/cuda/sample_params.h"
#include "kernels/sampling/sampling.h"
#include "model/forward/pass.h"

namespace hanlin {

// How the token behind a row is drawn.
struct CudaSampleRow {
  SampleSlot slot;                        // of MakeSampleSlot, with logprobs
  int32_t position = 0;                   // of the token drawn
  std::span<const LogitBias> logit_bias;  // no id twice, all in the vocabulary
  std::span<const int32_t> banned;        // may not be drawn
  std::span<const int32_t> ids;           // prompt and output so far; read with penalties only
};

struct PassShape {
  int32_t tokens = 0;
  int32_t decode_rows = 0;  // the first of the tokens
  int32_t segments = 0;
  int32_t logit_rows = 0;
  int32_t table_stride = 0;  // blocks of the longest sequence there can be
  bool operator==(const PassShape&) const = default;
};

struct PassView {
  std::byte* base;            // of the buffer
  int32_t* ids;               // [tokens]; -1 - r: what row r of the step before drew
  int32_t* positions;         // [tokens]; -1: padding
  int32_t* context;           // [decode_rows]; -1: padding
  PrefillSegment* segments;   // [segments]
  int32_t* row_index;         // [logit_rows] tokens whose logits are wanted
  int32_t* row_slots;         // [logit_rows]; -1: padding
  int32_t* sample_positions;  // [logit_rows]
  SampleSlot* slots;          // [logit_rows]
  int32_t* tables;            // [decode_rows + segments, table_stride]
  // Behind the fixed part, as long as needed: SampleBias entries, then banned ids, then the ids of
  // rows with penalties; all 8-byte units so that one base serves.
  std::byte* extra;
};

PassView ViewOf(std::byte* base, const PassShape& shape);
// Bytes of the fixed part.
size_t FixedBytes(const PassShape& shape);

// The shape of a pass. `decode_kernel`: leading one-token segments become decode rows.
PassShape ShapeOf(const Pass& pass, int32_t table_stride, bool decode_kernel);

// Writes the pass; `shape` may be larger in decode_rows, or in segments, and correspondingly in
// tokens and logit_rows: the rest is padding. Returns the largest num_tokens of the segments.
int32_t FillPass(const Pass& pass, int32_t block_tokens, const PassShape& shape,
                 const PassView& view);

// A row with penalties: its ids lie at `offset` of the extra bytes.
struct CountedRow {
  int32_t row;
  size_t offset;
  int32_t count;
};

// Writes slots and extra bytes of samples.size() rows, padding up to shape.logit_rows. Returns the
// number of extra bytes; rows with penalties get counts_row = row and are appended to `counted`.
size_t FillSamples(std::span<const CudaSampleRow> samples, const PassShape& shape,
                   const PassView& view, std::vector<CountedRow>* counted);
// What FillSamples would return.
size_t ExtraBytes(std::span<const CudaSampleRow> samples);

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_CUDA_PASS_PLAN_H_
