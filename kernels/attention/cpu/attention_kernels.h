// What attention.cc hands to the kernels of attention_simd.cc: a few rows of one sequence and one
// head.
#ifndef HANLIN_KERNELS_ATTENTION_CPU_ATTENTION_KERNELS_H_
#define HANLIN_KERNELS_ATTENTION_CPU_ATTENTION_KERNELS_H_

#include "kernels/attention/cpu/attention_params.h"
#include "kernels/base/dispatch.h"

namespace hanlin {

struct AttentionTile {
  const float* q;  // [rows][head_dim] of this head, rows q_stride apart
  int64_t q_stride;
  int rows;                // 1, 2, 4 or 8, at most AttentionKernels::tile_rows
  int64_t first_position;  // of the first row; the others follow it
  const int32_t* block_table;
  const void* head_base;  // this head in block 0
  size_t block_stride_bytes;
  int head_dim;
  float scale;  // 1 / sqrt(head_dim)
  void* out;    // [rows][head_dim], rows out_stride elements apart
  int64_t out_stride;
  ComputeType out_type;
};

struct AttentionKernels {
  int tile_rows;
  void (*float32)(const AttentionTile& tile);  // by the type of the cache
  void (*bfloat16)(const AttentionTile& tile);
};
HANLIN_DECLARE_KERNELS(AttentionKernels, kAttentionKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CPU_ATTENTION_KERNELS_H_
