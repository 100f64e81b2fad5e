// Plain data of the decode step in one kernel, shared by host and device code.
//
// All layers of a step at batch 1 run in one kernel of 128 blocks, one a multiprocessor, which stay
// until the end. A block owns the same rows of every layer's matrices; its weights come through one
// ring in shared memory, in the order in which they are used, so that memory goes on delivering
// while the grid synchronises:
//
//     QKV     a quarter of a head's rows of q, k and v     the head's four blocks wait for each
//     other KV      every fourth cache block of the head         the grid waits out     hidden /
//     128 rows                            the grid waits up      ffn / 128 rows the grid waits down
//     hidden / 128 rows                            the grid waits
#ifndef HANLIN_KERNELS_DECODE_STEP_CUDA_DECODE_STEP_PARAMS_H_
#define HANLIN_KERNELS_DECODE_STEP_CUDA_DECODE_STEP_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/base/types.h"

namespace hanlin {

inline constexpr int kDecodeStepHeads = 32;
inline constexpr int kDecodeStepSplits = 4;  // blocks that share a head
inline constexpr int kDecodeStepBlocks = kDecodeStepHeads * kDecodeStepSplits;
inline constexpr int kDecodeStepMaxLayers = 32;
inline constexpr int kDecodeStepMaxPositions = 2048;

// Weights of a layer, row-major; everything constant and aligned to 16 bytes.
struct DecodeStepLayer {
  const BFloat16* qkv = nullptr;   // [3, heads, head_dim, hidden]
  const BFloat16* out = nullptr;   // [hidden, hidden]
  const BFloat16* up = nullptr;    // [4 hidden, hidden]
  const BFloat16* down = nullptr;  // [hidden, 4 hidden]
  const float* qkv_bias = nullptr;
  const float* out_bias = nullptr;
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;
  const float* norm1_weight = nullptr;  // [hidden], as the three below
  const float* norm1_bias = nullptr;
  const float* norm2_weight = nullptr;
  const float* norm2_bias = nullptr;
};

// A number of arrivals, alone in its line of the cache.
struct alignas(128) DecodeStepCounter {
  uint64_t value;
};

// What the blocks tell each other besides vectors. In device memory, zeroed once, for steps of the
// same number of layers, one at a time.
struct DecodeStepExchange {
  DecodeStepCounter grid;                     // arrivals of blocks since the memory was zeroed
  DecodeStepCounter heads[kDecodeStepHeads];  // the same of a head's blocks
  float2 softmax[kDecodeStepBlocks];          // {maximum, sum} of a block's share of positions
};

struct DecodeStepParams {
  int hidden = 0;  // kDecodeStepHeads * kv.head_dim
  int num_layers = 0;
  const DecodeStepLayer* layers = nullptr;  // [num_layers] on the device
  float epsilon = 1e-5f;
  bool gelu_erf = false;             // else the tanh form
  PagedKv kv;                        // of the first layer
  int64_t kv_layer_bytes = 0;        // from a layer's cache to the next one's
  const int32_t* context = nullptr;  // [1], as DecodeAttentionParams; negative: position 0
  float* x = nullptr;                // [hidden] the residual stream, updated
  // Vectors between the phases.
  BFloat16* qkv = nullptr;  // [3, heads, head_dim]
  BFloat16* attention =
      nullptr;              // [heads, kDecodeStepSplits, head_dim] of a share of the positions
  BFloat16* mlp = nullptr;  // [4 hidden]
  DecodeStepExchange* exchange = nullptr;
};

cudaError_t LaunchDecodeStep(const DecodeStepParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_DECODE_STEP_CUDA_DECODE_STEP_PARAMS_H_
