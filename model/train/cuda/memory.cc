// See memory.h.
#include "model/train/cuda/memory.h"

#include <algorithm>

#include "kernels/attention/cuda/causal_attention.h"
#include "kernels/elementwise/cuda/elementwise.h"
#include "kernels/gemm/cuda/train_products.h"
#include "kernels/norm/cuda/layer_norm_train.h"
#include "kernels/optim/cuda/adamw.h"
#include "model/train/cuda/activations.h"
#include "model/train/cuda/parameters.h"

namespace hanlin {

TrainModel::Range OwnedRange(const TrainModelOptions& options, const ParameterLayout& layout) {
  if (!options.zero || options.data == nullptr) return {0, layout.size()};
  const int rank = options.data->rank(), size = options.data->size();
  return {layout.PartBegin(rank, size), layout.PartBegin(rank + 1, size)};
}

size_t TrainWorkspaceBytes(const TrainModelOptions& options, ComputeType type, int64_t sequences,
                           int64_t length) {
  const ModelConfig& config = options.config;
  const int tp = options.tensor == nullptr ? 1 : options.tensor->size();
  const int64_t tokens = sequences * length, hidden = config.hidden_size;
  size_t bytes = CausalAttentionWorkspaceBytes({.type = type,
                                                .sequences = sequences,
                                                .length = length,
                                                .heads = config.num_heads / tp,
                                                .head_dim = config.head_dim});
  bytes = std::max(bytes, CudaLayerNormBackwardBytes(type, tokens, hidden));
  for (const int64_t width : {hidden, int64_t{config.ffn_size / tp}}) {
    bytes = std::max(bytes, CudaColumnSumsBytes(type, tokens, width));
  }
  return bytes;
}

CudaTrainMemory PlanCudaTrainMemory(const TrainModelOptions& options, ComputeType type,
                                    int64_t sequences, int64_t length) {
  const ParameterLayout layout(options.config,
                               options.tensor == nullptr ? 1 : options.tensor->size());
  const TrainModel::Range owned = OwnedRange(options, layout);
  const CudaActivations activations(options, type, sequences, length, /*keep=*/true, nullptr);
  return {.master = CudaParameters::MasterBytes(layout),
          .gradients = layout.size() * sizeof(float),
          .moments = 2 * (owned.end - owned.begin) * sizeof(float),
          .activations = activations.bytes(),
          .logits = activations.logits_bytes(),
          .fixed = CudaParameters::FixedBytes(layout, type) + CudaTrainProducts::kWorkspaceBytes +
                   (kSquareParts + 2) * sizeof(double)};
}

}  // namespace hanlin
