// Parameters of a slot, the plan, and the checks before a launch.
#include "kernels/sampling/cuda/sample.h"

#include <algorithm>
#include <cmath>

#include "common/cuda/status.h"

namespace hanlin {
namespace {

constexpr int kIdsPerGroup = 64;      // kLogitGroup: what a block's slice is a multiple of
constexpr int kLeastSlice = 2048;     // fewer ids are not worth another block
constexpr int kReservedBytes = 1024;  // of shared memory, by the system

int SliceOf(int vocabulary, int cluster) {
  const int share = (vocabulary + cluster - 1) / cluster;
  return (share + kIdsPerGroup - 1) / kIdsPerGroup * kIdsPerGroup;
}

}  // namespace

SampleSlot MakeSampleSlot(const SamplingParams& params) {
  return {.seed = params.seed,
          .choice = params.choice,
          .greedy = IsGreedy(params),
          .scale = IsGreedy(params) ? 1.0f : 1.0f / params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .has_min_p = params.min_p > 0.0f,
          .log_min_p = params.min_p > 0.0f ? std::log(params.min_p) : 0.0f,
          .repetition_penalty = params.repetition_penalty,
          .presence_penalty = params.presence_penalty,
          .frequency_penalty = params.frequency_penalty};
}

absl::StatusOr<SamplePlan> PlanSample(int rows, int vocabulary, const CudaDevice& device) {
  if (rows < 0 || rows > kSampleMaxRows) {
    return InvalidArgument("sampling of {} rows, want 0 to {}", rows, kSampleMaxRows);
  }
  if (vocabulary < 1 || vocabulary > kSampleMaxVocabulary) {
    return InvalidArgument("sampling from {} ids, want 1 to {}", vocabulary, kSampleMaxVocabulary);
  }
  if (!device.hopper) {
    return SamplePlan{
        .slice = SliceOf(vocabulary, 1), .shared_bytes = kSampleScratchBytes, .plain = true};
  }
  const auto fits = [&](int cluster) {
    const size_t bytes = SampleSharedBytes(SliceOf(vocabulary, cluster));
    return bytes + kReservedBytes <= device.shared_memory_per_block;
  };
  // A cluster lies within one group of multiprocessors; some of a group's are left over by larger
  // clusters (an H100 runs 66 of two, 30 of four, 15 of eight).
  const auto runs_at_once = [&](int cluster) {
    const int usable = device.multiprocessors * (cluster > 2 ? 9 : 10) / 10;
    return cluster * rows <= usable;
  };
  int cluster = 1;
  while (cluster < kSampleMaxCluster &&
         (!fits(cluster) ||
          (runs_at_once(2 * cluster) && SliceOf(vocabulary, 2 * cluster) >= kLeastSlice))) {
    cluster *= 2;
  }
  if (!fits(cluster)) {
    return InvalidArgument("sampling from {} ids needs {} bytes of shared memory, a block has {}",
                           vocabulary, SampleSharedBytes(SliceOf(vocabulary, cluster)),
                           device.shared_memory_per_block);
  }
  const int slice = SliceOf(vocabulary, cluster);
  return SamplePlan{.cluster = cluster, .slice = slice, .shared_bytes = SampleSharedBytes(slice)};
}

absl::Status CudaSample(const CudaSampleParams& params, const SamplePlan& plan,
                        cudaStream_t stream) {
  if (params.rows < 0 || params.rows > kSampleMaxRows || params.vocabulary < 1 ||
      params.vocabulary > kSampleMaxVocabulary || params.logits_stride < params.vocabulary) {
    return InvalidArgument("sampling of {} rows of {} ids, stride {}", params.rows,
                           params.vocabulary, params.logits_stride);
  }
  if (plan.cluster < 1 || (plan.plain && plan.cluster > 1) || plan.slice < 1 ||
      plan.slice % kIdsPerGroup != 0 ||
      static_cast<int64_t>(plan.slice) * plan.cluster < params.vocabulary) {
    return InvalidArgument("sampling plan of {} x {} ids for {}", plan.cluster, plan.slice,
                           params.vocabulary);
  }
  if (params.rows == 0) return absl::OkStatus();
  if (params.logits == nullptr || params.row_slots == nullptr || params.slots == nullptr ||
      params.positions == nullptr) {
    return InvalidArgument("sampling needs logits, row_slots, slots and positions");
  }
  if (plan.plain) {
    if (params.workspace == nullptr) return InvalidArgument("plain sampling needs a workspace");
    return CudaStatus(LaunchPlainSample(params, plan, stream), "launch of plain sampling");
  }
  return CudaStatus(LaunchSample(params, plan, stream), "launch of sampling");
}

absl::Status CudaCountIds(const int32_t* ids, int32_t count, int32_t vocabulary, uint16_t* counts,
                          cudaStream_t stream) {
  if (count < 0 || vocabulary < 1 || counts == nullptr || (ids == nullptr && count > 0)) {
    return InvalidArgument("count of {} ids over {}", count, vocabulary);
  }
  return CudaStatus(LaunchCountIds(ids, count, vocabulary, counts, stream), "launch of counting");
}

}  // namespace hanlin
