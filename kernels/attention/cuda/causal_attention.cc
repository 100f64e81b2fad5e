// Checks before the launches, and the choice of the path.
#include "kernels/attention/cuda/causal_attention.h"

#include <limits>

#include "common/cuda/status.h"

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

size_t StatisticsBytes(int64_t sequences, int64_t length, int64_t heads) {
  return sequences * heads * PaddedLength(length) * sizeof(float2);
}

}  // namespace

absl::Status CudaCausalAttention(const CudaCausalAttentionParams& params, void* out,
                                 cudaStream_t stream) {
  RETURN_IF_ERROR(Check(params));
  if (params.sequences * params.length == 0) return absl::OkStatus();
  if (!IsAligned(out)) return InvalidArgument("causal attention wants out aligned to 16 bytes");
  if (IsFast(params)) {
    return CudaStatus(LaunchCausalAttention(params, out, stream), "launch of causal attention");
  }
  return CudaStatus(LaunchPlainCausalAttention(params, out, stream),
                    "launch of plain causal attention");
}

size_t CausalAttentionWorkspaceBytes(int64_t sequences, int64_t length, int64_t heads) {
  return StatisticsBytes(sequences, length, heads) + sequences * length * sizeof(int32_t);
}

absl::Status CudaCausalAttentionBackward(const CudaCausalAttentionParams& params,
                                         const CudaCausalAttentionGradients& gradients,
                                         cudaStream_t stream) {
  RETURN_IF_ERROR(Check(params));
  if (params.sequences * params.length == 0) return absl::OkStatus();
  if (!IsAligned(gradients.out) || !IsAligned(gradients.dout) || !IsAligned(gradients.dqkv) ||
      !IsAligned(gradients.workspace)) {
    return InvalidArgument(
        "causal attention's backward pass wants out, dout, dqkv and a workspace aligned to 16 "
        "bytes");
  }
  const CausalAttentionState state = {
      PaddedLength(params.length), static_cast<float2*>(gradients.workspace),
      reinterpret_cast<int32_t*>(static_cast<char*>(gradients.workspace) +
                                 StatisticsBytes(params.sequences, params.length, params.heads))};
  const bool fast = IsFast(params);
  RETURN_IF_ERROR(CudaStatus(LaunchPrepareBackward(params, gradients, state, stream),
                             "launch of attention's statistics"));
  const auto launch = fast ? LaunchCausalAttentionBackward : LaunchPlainCausalAttentionBackward;
  return CudaStatus(launch(params, gradients, state, stream),
                    "launch of causal attention's backward pass");
}

}  // namespace hanlin
