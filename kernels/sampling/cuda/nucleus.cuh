// The draw with top-p without its cut. A short list of ids, all that score at least a bar, holds
// the one that is drawn. Its best id is drawn when the mass before it is within top-p's limit; if
// not, everything kept comes before that id, and the best of the list before it is asked next.
// Masses are needed only up to a comparison with the limit, so sums in floating point with a bound
// on their error decide; where they are too close, or the list is of no use, the law's integers do
// (cut.cuh).
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_NUCLEUS_CUH_
#define HANLIN_KERNELS_SAMPLING_CUDA_NUCLEUS_CUH_

#include <cstdint>

#include "kernels/sampling/cuda/cut.cuh"
#include "kernels/sampling/cuda/draw.cuh"
#include "kernels/sampling/cuda/law.cuh"
#include "kernels/sampling/cuda/row.cuh"

namespace hanlin::sampling {

// The list is in rank 0's border; border_mass holds the bits of the scores. At least kWanted kept
// ids are expected in it, and the chance of none is exp(-kWanted). A smaller top-p than kLeastTopP
// would need a list too long.
constexpr float kWanted = 12.0f;
constexpr float kLeastTopP = 0.2f;
constexpr int kAsked = 3;  // ids of the list in one pass over the row

// A score that ids are expected to reach kWanted / top_p times, or a few times as often: scores
// exceed s exp(-s) * (sum of exp(logit)) times on average. That sum is bounded from below, for each
// thread by its largest and by its mean logit.
template <typename Row>
__device__ __forceinline__ float Bar(Row& row, float top_p, const Extremes& extremes) {
  constexpr float kOne = 8192.0f;  // the sum is at most kSampleMaxVocabulary of these
  const auto count = static_cast<float>(max(extremes.thread_count, 1));
  const float mean = fminf(extremes.thread_sum / count - extremes.max, 0.0f);
  const float share = fmaxf(Exp2((extremes.thread_max - extremes.max) * kLog2E),
                            static_cast<float>(extremes.thread_count) * Exp2(mean * kLog2E));
  const auto sum = static_cast<float>(row.Sum(__float2uint_rn(share * kOne))) / kOne;
  return extremes.max + __logf(sum * top_p / kWanted);
}

// Puts the ids that score at least the bar into the list; how many there are.
template <typename Row>
__device__ __forceinline__ int CollectScores(const Row& row, const Key& key, float bar,
                                             bool hinted) {
  Scratch* lead = row.At(&Own(), 0);
  const int counters = row.size / 4;
  for (int counter = threadIdx.x; counter < counters; counter += kThreads) {
    float x[4];
    ReadFour(row, counter, counters, x);
    ForEachNear(row, key, hinted, counter, x, -INFINITY, bar,
                [&](int32_t id, float logit, float v) {
                  const float score = logit + law::Gumbel(v);
                  if (!(score >= bar)) return;
                  const int at = atomicAdd(&lead->border_count, 1);
                  if (at >= kBorder) return;
                  lead->border_x[at] = logit;
                  lead->border_id[at] = id;
                  lead->border_mass[at] = __float_as_uint(score);
                });
  }
  row.Sync();
  return lead->border_count;
}

// The best of the list that comes before an id; kAnyId when there is none.
__device__ __forceinline__ Cut BestBefore(const Scratch* lead, int count, const Cut& id) {
  const int lane = threadIdx.x % 32;
  uint64_t best = 0;
  float x = 0.0f;
  for (int i = lane; i < count; i += 32) {
    if (!ComesBefore(lead->border_x[i], lead->border_id[i], id.value, id.id)) continue;
    const uint64_t pick = Pick(__uint_as_float(lead->border_mass[i]), lead->border_id[i]);
    if (pick <= best) continue;
    best = pick;
    x = lead->border_x[i];
  }
  const uint64_t largest = WarpLargest(best);
  if (largest == 0) return {INFINITY, kAnyId};
  const int owner = __ffs(__ballot_sync(kFull, best == largest)) - 1;
  return {__shfl_sync(kFull, x, owner), PickId(largest)};
}

// Lane i gets the warp's sum of value i / 8.
__device__ __forceinline__ float FoldFour(const float4& of) {
  const int lane = threadIdx.x % 32;
  const bool second = (lane & 16) != 0, odd = (lane & 8) != 0;
  float a = second ? of.z : of.x, b = second ? of.w : of.y;
  a += __shfl_xor_sync(kFull, second ? of.x : of.z, 16);
  b += __shfl_xor_sync(kFull, second ? of.y : of.w, 16);
  float sum = odd ? b : a;
  sum += __shfl_xor_sync(kFull, odd ? a : b, 8);
#pragma unroll
  for (int offset = 4; offset > 0; offset >>= 1) sum += __shfl_xor_sync(kFull, sum, offset);
  return sum;
}
__device__ __forceinline__ float4 SumFour(const float4& of) {
  const float sum = FoldFour(of);
  return make_float4(__shfl_sync(kFull, sum, 0), __shfl_sync(kFull, sum, 8),
                     __shfl_sync(kFull, sum, 16), __shfl_sync(kFull, sum, 24));
}

// The sums over the cluster's threads, through the memory of the bins.
template <typename Row>
__device__ __forceinline__ float4 SumFour(Row& row, const float4& of) {
  Scratch& s = Own();
  const int lane = threadIdx.x % 32;
  row.turn ^= 1;
  float4* warps = reinterpret_cast<float4*>(s.low) + row.turn * kWarps;
  float4* own = reinterpret_cast<float4*>(s.high) + row.turn;
  const float sum = FoldFour(of);
  if (lane % 8 == 0) reinterpret_cast<float*>(warps + threadIdx.x / 32)[lane / 8] = sum;
  __syncthreads();
  float4 total = SumFour(warps[lane]);
  if (row.ranks == 1) return total;
  if (threadIdx.x == 0) *own = total;
  row.Sync();
  return SumFour(lane < row.ranks ? *row.At(own, lane) : make_float4(0, 0, 0, 0));
}

// exp(logit - max) summed over the row, w, and over what comes before each of three ids, x, y and
// z.
template <typename Row>
__device__ __forceinline__ float4 MassesBefore(Row& row, const Cut (&ids)[kAsked], float max) {
  const float offset = -max * kLog2E;
  float below[kAsked];  // the largest float less than the id's logit
  int at[kAsked];
#pragma unroll
  for (int t = 0; t < kAsked; ++t) {
    below[t] = nextafterf(ids[t].value, -INFINITY);
    at[t] = ids[t].id - row.first;
  }
  float total = 0.0f, before[kAsked] = {};
  for (int i = 4 * threadIdx.x; i < row.size; i += 4 * kThreads) {
    const float4 four = row.FourLogits(i);
    const float x[4] = {four.x, four.y, four.z, four.w};
    float bound[kAsked];  // an equal logit comes before when its id is smaller
#pragma unroll
    for (int t = 0; t < kAsked; ++t) bound[t] = i + 3 < at[t] ? below[t] : ids[t].value;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float mass = Exp2(fmaf(x[j], kLog2E, offset));
      total += mass;
#pragma unroll
      for (int t = 0; t < kAsked; ++t) {
        if (x[j] > bound[t]) before[t] += mass;
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kAsked; ++t) {  // the four that the id is one of
    if (at[t] < 0 || at[t] >= row.size || at[t] / 4 % kThreads != threadIdx.x) continue;
    for (int i = at[t] / 4 * 4; i < at[t]; ++i) {
      if (row.Logits()[i] == ids[t].value) {
        before[t] += Exp2(fmaf(ids[t].value, kLog2E, offset));
      }
    }
  }
  return SumFour(row, make_float4(before[0], before[1], before[2], total));
}

// Steps 5 and 7 for a row without other filters; kAnyId where the cut is needed.
template <typename Row>
__device__ __forceinline__ int32_t DrawNucleus(Row& row, const Key& key, float top_p, bool hinted,
                                               const Extremes& extremes) {
  constexpr float kLargest = 1e5f;  // of a logit that Exp2's argument is exact enough for
  if (top_p < kLeastTopP || !(fabsf(extremes.max) < kLargest)) return kAnyId;
  if (threadIdx.x == 0) Own().border_count = 0;
  const float bar = Bar(row, top_p, extremes);
  const int count = CollectScores(row, key, bar, hinted);
  const Scratch* lead = row.At(&Own(), 0);
  // An error of 3.2e-6 a term, of half a unit of the law's integers, and of the additions.
  const auto ids = static_cast<float>(row.vocabulary);
  const float relative = 1e-5f + ids * 0x1p-33f, absolute = ids * 1.1f * 0x1p-30f;
  Cut last = {-INFINITY, kAnyId};
  bool decided = count <= kBorder;
  while (decided) {
    Cut asked[kAsked];
#pragma unroll
    for (int t = 0; t < kAsked; ++t) last = asked[t] = BestBefore(lead, count, last);
    if (asked[0].id == kAnyId) break;
    if (top_p >= 1.0f) return asked[0].id;
    const float4 sums = MassesBefore(row, asked, extremes.max);
    const float before[kAsked] = {sums.x, sums.y, sums.z};
    const float limit = top_p * sums.w, margin = sums.w * relative + absolute;
#pragma unroll
    for (int t = 0; t < kAsked; ++t) {
      if (!decided) break;
      if (asked[t].id != kAnyId && before[t] <= limit - margin) return asked[t].id;
      decided = asked[t].id != kAnyId && before[t] > limit + margin;
    }
  }
  row.Sync();  // everyone has read the list
  return kAnyId;
}

}  // namespace hanlin::sampling

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_NUCLEUS_CUH_
