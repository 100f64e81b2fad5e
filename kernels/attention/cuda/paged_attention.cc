// Checks before the launches, and the choice of the path.
#include "kernels/attention/cuda/paged_attention.h"

#include <limits>

#include "common/cuda/status.h"
#include "kernels/base/cuda/tensor_map.h"

namespace hanlin {
namespace {

bool IsAligned(const void* pointer) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

absl::Status CheckKv(const PagedKv& kv) {
  if (kv.heads < 1 || kv.head_dim < 8 || kv.head_dim % 8 != 0 || kv.head_dim > kPagedMaxHeadDim) {
    return InvalidArgument("attention of {} heads of {}, want a multiple of 8 up to {}", kv.heads,
                           kv.head_dim, kPagedMaxHeadDim);
  }
  if (!IsAligned(kv.base) || kv.block_tables == nullptr || kv.table_stride < 1) {
    return InvalidArgument("attention needs a cache aligned to 16 bytes and block tables");
  }
  return absl::OkStatus();
}

absl::Status CheckPrefill(const PrefillAttentionParams& p) {
  RETURN_IF_ERROR(CheckKv(p.kv));
  if (p.num_segments < 0 || p.num_segments > 65535 || p.max_tokens < 0 || p.tokens < p.max_tokens) {
    return InvalidArgument("prefill of {} segments of up to {} tokens, {} in all", p.num_segments,
                           p.max_tokens, p.tokens);
  }
  if (!IsAligned(p.segments) || !IsAligned(p.qkv) || !IsAligned(p.out)) {
    return InvalidArgument("prefill attention wants segments, qkv and out aligned to 16 bytes");
  }
  return absl::OkStatus();
}

absl::Status MakeMaps(const PrefillAttentionParams& p, PrefillMaps* maps) {
  constexpr int kTile = 64;  // rows, and elements of a wide box
  TensorBoxes qkv = {.matrix = p.qkv,
                     .rows = p.tokens,
                     .columns = int64_t{3} * p.kv.heads * p.kv.head_dim,
                     .row_elements = int64_t{3} * p.kv.heads * p.kv.head_dim,
                     .box_rows = kTile};
  TensorBoxes cache = {.matrix = p.kv.base,
                       .rows = std::numeric_limits<int32_t>::max(),  // as many as blocks there are
                       .columns = p.kv.head_dim,
                       .row_elements = p.kv.head_dim,
                       .box_rows = kPagedKvTokens};
  RETURN_IF_ERROR(EncodeTensorMap(qkv, &maps->qkv));
  RETURN_IF_ERROR(EncodeTensorMap(cache, &maps->cache));
  if (p.kv.head_dim % kTile == 0) return absl::OkStatus();
  qkv.box_columns = cache.box_columns = p.kv.head_dim % kTile;
  RETURN_IF_ERROR(EncodeTensorMap(qkv, &maps->qkv_rest));
  return EncodeTensorMap(cache, &maps->cache_rest);
}

bool HasFastPrefill(const PrefillAttentionParams& p) {
  return !p.plain && p.kv.type == ComputeType::kBFloat16 &&
         (p.kv.head_dim == 64 || p.kv.head_dim == 80 || p.kv.head_dim == 128);
}

}  // namespace

absl::Status DecodeAttention(const DecodeAttentionParams& params, const DecodeAttentionPlan& plan,
                             cudaStream_t stream) {
  RETURN_IF_ERROR(CheckKv(params.kv));
  if (params.batch < 1 || params.context == nullptr || !IsAligned(params.qkv) ||
      !IsAligned(params.out)) {
    return InvalidArgument(
        "decode attention of batch {} needs contexts, and qkv and out aligned to 16 bytes",
        params.batch);
  }
  if (plan.plain) {
    return CudaStatus(LaunchPlainDecodeAttention(params, stream), "launch of plain attention");
  }
  return CudaStatus(LaunchDecodeAttention(params, plan, stream), "launch of decode attention");
}

absl::Status PrefillAttention(const PrefillAttentionParams& params, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckPrefill(params));
  if (params.num_segments == 0 || params.max_tokens == 0) return absl::OkStatus();
  if (HasFastPrefill(params)) {
    PrefillMaps maps = {};
    RETURN_IF_ERROR(MakeMaps(params, &maps));
    return CudaStatus(LaunchPrefillAttention(params, maps, stream), "launch of prefill attention");
  }
  return CudaStatus(LaunchPlainPrefillAttention(params, stream), "launch of plain attention");
}

}  // namespace hanlin
