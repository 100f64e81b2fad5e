// The layers of a single decode row, where a model and a device have kernels for them: decode
// blocks, two kernels a layer, or the decode step, one kernel for all layers.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/cuda/status.h"
#include "kernels/attention/cuda/paged_attention.h"
#include "model/forward/cuda/transformer.h"

namespace hanlin {
namespace {

const BFloat16* AsBFloat16(const CudaMatrix& matrix) {
  return static_cast<const BFloat16*>(matrix.data);
}

bool UsesDecodeBlocks(const CudaTransformer::Options& options) {
  const ModelConfig& config = options.config;
  return options.communicator == nullptr && !options.batch_invariant &&
         HasDecodeBlocks(options.type, config.hidden_size, config.num_heads, config.ffn_size,
                         config.max_positions, options.device);
}

bool UsesDecodeStep(const CudaTransformer::Options& options) {
  const ModelConfig& config = options.config;
  return options.communicator == nullptr && !options.batch_invariant &&
         HasDecodeStep(options.type, config.hidden_size, config.num_heads, config.ffn_size,
                       config.num_layers, config.max_positions, options.device);
}

size_t PackedElements(const ModelConfig& config) {
  return config.num_layers * (kPackedAttentionElements + kPackedMlpElements);
}

}  // namespace

uint64_t CudaTransformer::PackedBytes(const Options& options) {
  return UsesDecodeBlocks(options) ? PackedElements(options.config) * sizeof(BFloat16) : 0;
}

absl::Status CudaTransformer::PrepareDecode(const CudaStream& stream) {
  if (UsesDecodeStep(options_)) RETURN_IF_ERROR(PrepareStep());
  return UsesDecodeBlocks(options_) ? PackBlocks(stream) : absl::OkStatus();
}

absl::Status CudaTransformer::PackBlocks(const CudaStream& stream) {
  ASSIGN_OR_RETURN(block_stream_, DeviceBuffer<float>::Create(2 * kDecodeBlockHidden));
  ASSIGN_OR_RETURN(block_partials_, DeviceBuffer<float>::Create((kDecodeBlockHeads + kMlpPartials) *
                                                                kDecodeBlockHidden));
  ASSIGN_OR_RETURN(packed_, DeviceBuffer<BFloat16>::Create(PackedElements(options_.config)));
  BFloat16* at = packed_.data();
  for (const CudaLayerWeights& w : options_.weights->layers) {
    RETURN_IF_ERROR(
        PackAttentionBlock(AsBFloat16(w.qkv), AsBFloat16(w.attention_out), at, stream.get()));
    at += kPackedAttentionElements;
    RETURN_IF_ERROR(PackMlpBlock(AsBFloat16(w.mlp_up), AsBFloat16(w.mlp_down), at, stream.get()));
    at += kPackedMlpElements;
  }
  return stream.Synchronize();
}

absl::Status CudaTransformer::DecodeBlocks(const Pass& pass, const CudaStream& stream) {
  const ModelConfig& config = options_.config;
  float* const behind_attention = block_stream_.data();
  float* const behind_mlp = behind_attention + kDecodeBlockHidden;
  float* const heads = block_partials_.data();
  float* const slices = heads + kDecodeBlockHeads * kDecodeBlockHidden;
  const BFloat16* packed = packed_.data();
  ResidualInput in = {.x = x_};
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const CudaLayerWeights& w = options_.weights->layers[layer];
    RETURN_IF_ERROR(AttentionBlock({.in = in,
                                    .norm_weight = w.ln1_weight.data,
                                    .norm_bias = w.ln1_bias.data,
                                    .epsilon = config.layernorm_epsilon,
                                    .packed = packed,
                                    .qkv_bias = w.qkv_bias.data,
                                    .kv = KvOfLayer(pass, layer),
                                    .context = pass.plan.context,
                                    .x_out = behind_attention,
                                    .partials_out = heads},
                                   stream.get()));
    packed += kPackedAttentionElements;
    RETURN_IF_ERROR(
        MlpBlock({.in = {.x = behind_attention, .partials = heads, .bias = w.attention_bias.data},
                  .norm_weight = w.ln2_weight.data,
                  .norm_bias = w.ln2_bias.data,
                  .epsilon = config.layernorm_epsilon,
                  .gelu_erf = config.gelu != GeluKind::kTanh,
                  .packed = packed,
                  .up_bias = w.mlp_up_bias.data,
                  .x_out = behind_mlp,
                  .partials_out = slices},
                 stream.get()));
    packed += kPackedMlpElements;
    in = {.x = behind_mlp, .partials = slices, .bias = w.mlp_down_bias.data};
  }
  return FinishBlocks(in, x_, stream.get());
}

absl::Status CudaTransformer::PrepareStep() {
  std::vector<DecodeStepLayer> layers;
  for (const CudaLayerWeights& w : options_.weights->layers) {
    layers.push_back({.qkv = AsBFloat16(w.qkv),
                      .out = AsBFloat16(w.attention_out),
                      .up = AsBFloat16(w.mlp_up),
                      .down = AsBFloat16(w.mlp_down),
                      .qkv_bias = w.qkv_bias.data,
                      .out_bias = w.attention_bias.data,
                      .up_bias = w.mlp_up_bias.data,
                      .down_bias = w.mlp_down_bias.data,
                      .norm1_weight = w.ln1_weight.data,
                      .norm1_bias = w.ln1_bias.data,
                      .norm2_weight = w.ln2_weight.data,
                      .norm2_bias = w.ln2_bias.data});
  }
  ASSIGN_OR_RETURN(step_exchange_, DeviceBuffer<DecodeStepExchange>::Create(1));
  RETURN_IF_ERROR(step_exchange_.Clear());
  ASSIGN_OR_RETURN(step_attention_,
                   DeviceBuffer<BFloat16>::Create(kDecodeStepSplits * options_.config.hidden_size));
  // Its copy waits for the clearing, too.
  ASSIGN_OR_RETURN(step_layers_, DeviceBuffer<DecodeStepLayer>::From(layers));
  return absl::OkStatus();
}

absl::Status CudaTransformer::RunStep(const Pass& pass, const CudaStream& stream) {
  const ModelConfig& config = options_.config;
  const size_t block_bytes = PagedKvBlockBytes(options_.type, local_heads_, config.head_dim);
  return DecodeStep({.hidden = config.hidden_size,
                     .num_layers = config.num_layers,
                     .layers = step_layers_.data(),
                     .epsilon = config.layernorm_epsilon,
                     .gelu_erf = config.gelu != GeluKind::kTanh,
                     .kv = KvOfLayer(pass, 0),
                     .kv_layer_bytes = static_cast<int64_t>(block_bytes * num_blocks_),
                     .context = pass.plan.context,
                     .x = x_,
                     .qkv = reinterpret_cast<BFloat16*>(qkv_),
                     .attention = step_attention_.data(),
                     .mlp = reinterpret_cast<BFloat16*>(mlp_),
                     .exchange = step_exchange_.data()},
                    stream.get());
}

}  // namespace hanlin
