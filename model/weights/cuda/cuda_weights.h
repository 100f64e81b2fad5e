// One rank's slice of a model's weights in the memory of a GPU: matrices row-major in the compute
// type, vectors and positions in fp32, all in one allocation. Loading streams: every thread reads
// rows of a tensor, converts them into a pinned buffer and lets the device copy it while it fills
// the other one. Thread-safe once loaded: immutable.
#ifndef HANLIN_MODEL_WEIGHTS_CUDA_CUDA_WEIGHTS_H_
#define HANLIN_MODEL_WEIGHTS_CUDA_CUDA_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "common/threading/thread_pool.h"
#include "kernels/base/types.h"
#include "model/checkpoint/checkpoint.h"
#include "model/config/config.h"
#include "model/weights/weights.h"

namespace hanlin {

// Device pointers, aligned to 256 bytes.
struct CudaMatrix {
  const void* data = nullptr;  // [n, k] of the compute type
  int64_t n = 0;
  int64_t k = 0;
};
struct CudaVector {
  const float* data = nullptr;
  // The same values rounded, as cublasLt wants a bias; null for what is no bias.
  const BFloat16* bf16 = nullptr;
};

// Shapes are those of LayerWeights and GptWeights (model/weights/weights.h).
struct CudaLayerWeights {
  CudaVector ln1_weight, ln1_bias;
  CudaMatrix qkv;
  CudaVector qkv_bias;
  CudaMatrix attention_out;
  CudaVector attention_bias;
  CudaVector ln2_weight, ln2_bias;
  CudaMatrix mlp_up;
  CudaVector mlp_up_bias;
  CudaMatrix mlp_down;
  CudaVector mlp_down_bias;
};

struct CudaWeights {
  DeviceBuffer<std::byte> memory;  // holds everything below
  CudaMatrix word_embedding;
  CudaVector position_embedding;
  std::vector<CudaLayerWeights> layers;
  CudaVector final_ln_weight, final_ln_bias;
};

// Bytes that LoadCudaWeights will take on the device of a rank.
uint64_t CudaWeightBytes(const ModelConfig& config, ComputeType type, int tp_size);

// Reads the slice of one rank to `device`. INVALID_ARGUMENT for a degree that does not divide the
// model, RESOURCE_EXHAUSTED without memory on the device, and what the checkpoint reports.
absl::StatusOr<std::unique_ptr<CudaWeights>> LoadCudaWeights(const Checkpoint& checkpoint,
                                                             const WeightsOptions& options,
                                                             const CudaDevice& device,
                                                             ThreadPool* pool);

}  // namespace hanlin

#endif  // HANLIN_MODEL_WEIGHTS_CUDA_CUDA_WEIGHTS_H_
