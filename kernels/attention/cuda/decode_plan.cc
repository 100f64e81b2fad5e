// The heuristics of decode attention: kWarps warps a (sequence, head), always, so that the bits of
// a row depend on nothing but its own context. While two blocks a pair still fit on the device at
// once, they are a cluster with two tiles a warp in flight; otherwise one block does it. Measured
// on an H100: larger clusters cost more in the merge than they save, more tiles in flight do not
// help a large batch.
#include "kernels/attention/cuda/paged_attention.h"

namespace hanlin {
namespace {

constexpr int kWarps = 16;
constexpr size_t kReserved = 2048;  // static shared memory of the kernel, and what the system takes
constexpr int kMaxGridRows = 65535;

size_t SharedBytes(int head_dim, int warps, int stages) {
  const size_t ring = 2 * kPagedKvTokens * static_cast<size_t>(head_dim) * sizeof(BFloat16);
  return warps * stages * ring + kWarps * (head_dim + 2) * sizeof(float);
}

}  // namespace

absl::StatusOr<DecodeAttentionPlan> PlanDecodeAttention(ComputeType type, int batch, int heads,
                                                        int head_dim, const CudaDevice& device) {
  if (batch < 1 || batch > kMaxGridRows || heads < 1 || heads > kMaxGridRows) {
    return InvalidArgument("decode attention of batch {} and {} heads, want 1 to {}", batch, heads,
                           kMaxGridRows);
  }
  if (head_dim < 8 || head_dim % 8 != 0 || head_dim > kPagedMaxHeadDim) {
    return InvalidArgument("head size is {}, want a multiple of 8 up to {}", head_dim,
                           kPagedMaxHeadDim);
  }
  if (device.multiprocessors < 1) {
    return InvalidArgument("{} multiprocessors", device.multiprocessors);
  }
  DecodeAttentionPlan plan;
  const bool fast_size = head_dim == 64 || head_dim == 80 || head_dim == 128;
  if (!device.hopper || type != ComputeType::kBFloat16 || !fast_size ||
      SharedBytes(head_dim, kWarps, 1) + kReserved > device.shared_memory_per_block) {
    plan.plain = true;
    return plan;
  }
  const int64_t pairs = static_cast<int64_t>(batch) * heads;
  if (pairs * 2 <= device.multiprocessors) {
    plan.cluster = 2;
    plan.stages = 2;
  }
  plan.warps = kWarps / plan.cluster;
  plan.shared_bytes = SharedBytes(head_dim, plan.warps, plan.stages);
  return plan;
}

}  // namespace hanlin
