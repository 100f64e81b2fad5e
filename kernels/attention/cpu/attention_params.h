// Plain data of paged attention, shared by attention.h and the kernels behind it; the layout of the
// cache is described in attention.h.
#ifndef HANLIN_KERNELS_ATTENTION_CPU_ATTENTION_PARAMS_H_
#define HANLIN_KERNELS_ATTENTION_CPU_ATTENTION_PARAMS_H_

#include "kernels/base/types.h"

namespace hanlin {

inline constexpr int kKvBlockTokens = 16;
inline constexpr int kMaxHeadDim = 256;

// The cache of one layer.
struct KvCache {
  ComputeType type = ComputeType::kFloat32;
  int heads = 0;
  int head_dim = 0;               // a multiple of 8 up to kMaxHeadDim
  void* base = nullptr;           // 32-byte aligned
  size_t block_stride_bytes = 0;  // >= KvBlockBytes, a multiple of 32
};

// A run of rows of one sequence at consecutive positions: one row when decoding, a chunk of the
// prompt in prefill.
struct AttentionSegment {
  int64_t first_row = 0;  // in q, k, v, out
  int64_t rows = 0;
  int64_t first_position = 0;  // of first_row in its sequence
  const int32_t* block_table =
      nullptr;  // block numbers of the sequence, for positions 0 .. first_position + rows - 1
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CPU_ATTENTION_PARAMS_H_
