// Checks before the launches, and the choice of the path.
#include "kernels/attention/cuda/causal_attention.h"

#include <limits>

#include "common/cuda/status.h"
#include "kernels/base/cuda/tensor_map.h"
#include "kernels/elementwise/cuda/column_sums_launch.h"

namespace hanlin {
namespace {

constexpr int64_t kMaxSequences = 65535;  // what a grid is along z
constexpr int64_t kMaxHeads = 1024;       // times kHeadColumns fits in 32 bits

bool IsAligned(const void* pointer) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

absl::Status Check(const CudaCausalAttentionParams& p) {
  if (p.heads < 1 || p.heads > kMaxHeads || p.head_dim < 8 || p.head_dim % 8 != 0 ||
      p.head_dim > 128) {
    return InvalidArgument("causal attention of {} heads of {}, want a multiple of 8 up to 128",
                           p.heads, p.head_dim);
  }
  if (p.sequences < 0 || p.sequences > kMaxSequences || p.length < 0 ||
      p.length > int64_t{kHeadColumns}) {
    return InvalidArgument("causal attention over {} sequences of {}, want at most {} of {}",
                           p.sequences, p.length, kMaxSequences, kHeadColumns);
  }
  if (p.sequences * p.heads * (PaddedLength(p.length) / 64) > std::numeric_limits<int>::max()) {
    return InvalidArgument("causal attention over {} sequences of {} with {} heads is too large",
                           p.sequences, p.length, p.heads);
  }
  if (!(p.scale > 0) || !(p.dropout.rate >= 0 && p.dropout.rate < 1)) {
    return InvalidArgument("causal attention with scale {} and dropout {}", p.scale,
                           p.dropout.rate);
  }
  if (p.sequences * p.length == 0) return absl::OkStatus();
  if (!IsAligned(p.qkv) || !IsAligned(p.log_sum)) {
    return InvalidArgument("causal attention wants qkv and log_sum aligned to 16 bytes");
  }
  return absl::OkStatus();
}

bool IsFast(const CudaCausalAttentionParams& p) {
  return p.type == ComputeType::kBFloat16 &&
         (p.head_dim == 64 || p.head_dim == 80 || p.head_dim == 128);
}

absl::StatusOr<CausalAttentionMaps> MakeMaps(const CudaCausalAttentionParams& p) {
  const int64_t width = 3 * p.heads * p.head_dim;
  TensorBoxes boxes = {.matrix = p.qkv,
                       .rows = p.length,
                       .columns = width,
                       .row_elements = width,
                       .box_rows = kMapRows,
                       .box_columns = 64,
                       .matrices = p.sequences};
  CausalAttentionMaps maps;
  RETURN_IF_ERROR(EncodeTensorMap(boxes, &maps.panels));
  boxes.box_columns = 16;
  RETURN_IF_ERROR(EncodeTensorMap(boxes, &maps.tail));
  return maps;
}

size_t Aligned(size_t bytes) { return (bytes + 15) / 16 * 16; }

size_t StatisticsBytes(const CudaCausalAttentionParams& p) {
  return Aligned(p.sequences * p.heads * PaddedLength(p.length) * sizeof(float2));
}
size_t DocumentEndBytes(const CudaCausalAttentionParams& p) {
  return Aligned(p.sequences * p.length * sizeof(int32_t));
}
int64_t BiasWidth(const CudaCausalAttentionParams& p) { return 3 * p.heads * p.head_dim; }
// Partial sums of a bias's gradient.
int SumParts(const CudaCausalAttentionParams& p) {
  return IsFast(p) ? static_cast<int>(p.sequences * PaddedLength(p.length) / 64)
                   : ColumnSumParts(p.type, p.sequences * p.length, BiasWidth(p));
}

cudaError_t PlainBackward(const CudaCausalAttentionParams& p,
                          const CudaCausalAttentionGradients& gradients,
                          const CausalAttentionState& state, cudaStream_t stream) {
  cudaError_t error = LaunchStatistics(p, gradients, state, stream);
  if (error == cudaSuccess) error = LaunchPlainCausalAttentionBackward(p, gradients, state, stream);
  if (error != cudaSuccess) return error;
  return LaunchColumnSums(p.type, gradients.dqkv, p.sequences * p.length, BiasWidth(p),
                          state.partial_sums, stream);
}

}  // namespace

absl::Status CudaCausalAttention(const CudaCausalAttentionParams& params, void* out,
                                 cudaStream_t stream) {
  RETURN_IF_ERROR(Check(params));
  if (params.sequences * params.length == 0) return absl::OkStatus();
  if (!IsAligned(out)) return InvalidArgument("causal attention wants out aligned to 16 bytes");
  if (IsFast(params)) {
    ASSIGN_OR_RETURN(const CausalAttentionMaps maps, MakeMaps(params));
    return CudaStatus(LaunchCausalAttention(params, maps, out, stream),
                      "launch of causal attention");
  }
  return CudaStatus(LaunchPlainCausalAttention(params, out, stream),
                    "launch of plain causal attention");
}

size_t CausalAttentionWorkspaceBytes(const CudaCausalAttentionParams& params) {
  return StatisticsBytes(params) + DocumentEndBytes(params) +
         SumParts(params) * BiasWidth(params) * sizeof(float);
}

absl::Status CudaCausalAttentionBackward(const CudaCausalAttentionParams& params,
                                         const CudaCausalAttentionGradients& gradients,
                                         cudaStream_t stream) {
  RETURN_IF_ERROR(Check(params));
  if (params.sequences * params.length == 0) return absl::OkStatus();
  if (!IsAligned(gradients.out) || !IsAligned(gradients.dout) || !IsAligned(gradients.dqkv) ||
      gradients.dbias == nullptr || !IsAligned(gradients.workspace)) {
    return InvalidArgument(
        "causal attention's backward pass wants out, dout, dqkv and a workspace aligned to 16 "
        "bytes, and dbias");
  }
  char* const document_end = static_cast<char*>(gradients.workspace) + StatisticsBytes(params);
  const CausalAttentionState state = {
      .padded_length = PaddedLength(params.length),
      .statistics = static_cast<float2*>(gradients.workspace),
      .partial_sums = reinterpret_cast<float*>(document_end + DocumentEndBytes(params)),
      .document_end = reinterpret_cast<int32_t*>(document_end)};
  RETURN_IF_ERROR(
      CudaStatus(LaunchDocumentEnds(params, state, stream), "launch of attention's document ends"));
  const auto launch = IsFast(params) ? LaunchCausalAttentionBackward : PlainBackward;
  RETURN_IF_ERROR(CudaStatus(launch(params, gradients, state, stream),
                             "launch of causal attention's backward pass"));
  return CudaStatus(LaunchAddParts(state.partial_sums, SumParts(params), BiasWidth(params),
                                   gradients.dbias, nullptr, nullptr, stream),
                    "launch of attention's bias gradient");
}

}  // namespace hanlin
