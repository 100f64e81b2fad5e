// The draw from a short list: all kept ids that score at least a bar, one of which is drawn. Top-p
// alone needs no cut then. The best of the list is drawn when the mass before it is within the
// limit; if not, everything kept comes before that id, and the best of the list before it is asked
// next. Masses are needed only up to a comparison with the limit, so sums in floating point with a
// bound on their error decide; where they are too close, or the list is of no use, the law's
// integers do (cut.cuh).
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_DRAW_LIST_CUH_
#define HANLIN_KERNELS_SAMPLING_CUDA_DRAW_LIST_CUH_

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

// A verdict; others are the id to draw, and kAnyId where the cut is needed.
constexpr int32_t kAskMore = -1;

// A score that kept ids are expected to reach kWanted / top_p times, or a few times as often:
// scores exceed s exp(-s) * (sum of exp(logit)) times on average. That sum is bounded from below,
// for each thread by its largest logit and, where there is no cut, by its mean.
template <typename Row>
__device__ __forceinline__ float Bar(Row& row, float top_p, const Cut& cut,
                                     const Extremes& extremes) {
  constexpr float kOne = 8192.0f;  // the sum is at most kSampleMaxVocabulary of these
  float share = 0.0f;
  if (extremes.thread_max >= cut.value) {
    share = Exp2((extremes.thread_max - extremes.max) * kLog2E);
  }
  if (cut.value == -INFINITY) {
    const auto count = static_cast<float>(extremes.thread_count);
    const float mean = __fdividef(extremes.thread_sum, fmaxf(count, 1.0f)) - extremes.max;
    share = fmaxf(share, count * Exp2(fminf(mean, 0.0f) * kLog2E));
  }
  const auto sum = static_cast<float>(row.Sum(__float2uint_rn(share * kOne)));
  return extremes.max + __logf(sum * (top_p / (kOne * kWanted)));
}

// What ForEachNear asks of a counter with a hint, where there are none.
template <typename Row>
__device__ __forceinline__ bool WordsReach(const Row& row, const Key& key, int counter,
                                           float threshold) {
  uint32_t words[4];
  WordsOf(row, key, counter, words);
  const float* x = row.Logits() + IndexOf(counter);
  const float largest = fmaxf(fmaxf(x[0], x[16]), fmaxf(x[32], x[48]));
  return !(fmaf(HintOf(words), -kHintStep, largest) < threshold);
}

// Puts the kept ids that score at least the bar into the list; how many there are. First the
// counters that might, into the memory of the bins, so that then all threads share their work.
template <typename Row>
__device__ __forceinline__ int CollectScores(const Row& row, const Key& key, const Cut& cut,
                                             bool hinted, float max, float bar) {
  Scratch& s = Own();
  Scratch* lead = row.At(&s, 0);
  const float margin = Margin(max, bar), noisy = bar - margin - kHintNoise;
  const float threshold = hinted ? noisy : fmaxf(cut.value, noisy);
  const auto note = [&](int counter) {
    if (!Row::kShared && !WordsReach(row, key, counter, noisy)) return;
    const int at = atomicAdd(&s.near_count, 1);
    if (at < kBins) s.low[at] = counter;
  };
  const auto fixed = [=] { return threshold; };
  ForEachNear(row, hinted, fixed, note);
  __syncthreads();
  const int near = s.near_count;
  if (near > kBins && threadIdx.x == 0) atomicAdd(&lead->border_count, kBorder + 1);
#pragma unroll 1
  for (int i = threadIdx.x; i < 4 * min(near, kBins); i += kThreads) {
    uint32_t words[4];
    const int counter = s.low[i / 4];
    WordsOf(row, key, counter, words);
    const int index = IndexOf(counter) + 16 * (i % 4);
    const float logit = row.Logits()[index];
    const float v = law::Uniform(Choose(words, i % 4));
    if (!(BoundOfScore(logit, v) + margin >= bar)) continue;
    const float score = logit + law::Gumbel(v);
    if (!(score >= bar) || !Keeps(cut, logit, row.first + index)) continue;
    const int at = atomicAdd(&lead->border_count, 1);
    if (at >= kBorder) continue;
    lead->border_x[at] = logit;
    lead->border_id[at] = row.first + index;
    lead->border_mass[at] = __float_as_uint(score);
  }
  row.Sync();
  return lead->border_count;
}

// Copies the list to every block.
template <typename Row>
__device__ __forceinline__ void ShareList(const Row& row, int count) {
  if (row.ranks == 1) return;
  Scratch& s = Own();
  const Scratch* lead = row.At(&s, 0);
  if (row.rank != 0 && threadIdx.x < count) {
    s.border_x[threadIdx.x] = lead->border_x[threadIdx.x];
    s.border_id[threadIdx.x] = lead->border_id[threadIdx.x];
    s.border_mass[threadIdx.x] = lead->border_mass[threadIdx.x];
  }
  __syncthreads();
}

// The best of the list that comes before an id; kAnyId when there is none. For a whole warp.
__device__ __forceinline__ Cut BestBefore(int count, const Cut& id) {
  const Scratch& s = Own();
  uint64_t best = 0;
  float x = 0.0f;
#pragma unroll 1
  for (int i = threadIdx.x % 32; i < count; i += 32) {
    if (!ComesBefore(s.border_x[i], s.border_id[i], id.value, id.id)) continue;
    const uint64_t pick = Pick(__uint_as_float(s.border_mass[i]), s.border_id[i]);
    if (pick <= best) continue;
    best = pick;
    x = s.border_x[i];
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

// The sums over the cluster's threads, for warp 0: as FoldFour. Through the memory of the bins.
template <typename Row>
__device__ __forceinline__ float FoldFour(Row& row, const float4& of) {
  Scratch& s = Own();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  auto* warps = reinterpret_cast<float4*>(s.low);
  float4* own = reinterpret_cast<float4*>(s.high) + (row.turn ^= 1);
  float sum = FoldFour(of);
  if (lane % 8 == 0) reinterpret_cast<float*>(warps + warp)[lane / 8] = sum;
  __syncthreads();
  if (warp == 0) sum = FoldFour(warps[lane]);
  if (row.ranks == 1) return sum;
  if (warp == 0 && lane % 8 == 0) reinterpret_cast<float*>(own)[lane / 8] = sum;
  row.Sync();
  if (warp == 0) sum = FoldFour(lane < row.ranks ? *row.At(own, lane) : make_float4(0, 0, 0, 0));
  return sum;
}

// exp(logit - max) summed over this thread's logits, w, and over those that come before each of the
// ids asked about, x, y and z.
template <typename Row>
__device__ __forceinline__ float4 MassesBefore(const Row& row, float max) {
  const float offset = -max * kLog2E;
  Asked asked[kAsked];
#pragma unroll
  for (int t = 0; t < kAsked; ++t) {
    asked[t] = Own().asked[t];
    asked[t].id -= row.first;
  }
  float total = 0.0f, before[kAsked] = {};
#pragma unroll 2
  for (int i = 4 * threadIdx.x; i < row.size; i += 4 * kThreads) {
    const float4 four = row.FourLogits(i);
    const float x[4] = {four.x, four.y, four.z, four.w};
    float bound[kAsked];  // an equal logit comes before when its id is smaller
#pragma unroll
    for (int t = 0; t < kAsked; ++t)
      bound[t] = i + 3 < asked[t].id ? asked[t].below : asked[t].value;
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
    const int at = asked[t].id, group = at / 4;
    if (at < 0 || at >= row.size || group % kThreads != threadIdx.x) continue;
#pragma unroll 1
    for (int i = 4 * group; i < at; ++i) {
      if (row.Logits()[i] == asked[t].value) {
        before[t] += Exp2(fmaf(asked[t].value, kLog2E, offset));
      }
    }
  }
  return make_float4(before[0], before[1], before[2], total);
}

// The first of the ids asked about before which lies at most the limit. `sums` as of FoldFour.
__device__ __forceinline__ int32_t Verdict(float sums, float top_p, int32_t vocabulary) {
  const float total = __shfl_sync(kFull, sums, 8 * kAsked);
  // An error of 3.2e-6 a term, of half a unit of the law's integers, and of the additions.
  const auto ids = static_cast<float>(vocabulary);
  const float margin = total * (1e-5f + ids * 0x1p-33f) + ids * 1.1f * 0x1p-30f;
  const float limit = top_p * total;
#pragma unroll
  for (int t = 0; t < kAsked; ++t) {
    const float before = __shfl_sync(kFull, sums, 8 * t);
    const int32_t id = Own().asked[t].id;
    if (id != kAnyId && before <= limit - margin) return id;
    if (id == kAnyId || !(before > limit + margin)) return kAnyId;
  }
  return kAskMore;
}

// The first of the list before which lies at most top-p's limit.
template <typename Row>
__device__ __forceinline__ int32_t Ask(Row& row, float top_p, float max, int count) {
  Scratch& s = Own();
  const bool leads = threadIdx.x < 32;
  Cut last = {-INFINITY, kAnyId};
  for (;;) {
    if (leads) {
#pragma unroll 1
      for (int t = 0; t < kAsked; ++t) {
        last = BestBefore(count, last);
        if (threadIdx.x == 0) s.asked[t] = {last.value, nextafterf(last.value, -INFINITY), last.id};
      }
    }
    __syncthreads();
    if (s.asked[0].id == kAnyId) return kAnyId;
    const float sums = FoldFour(row, MassesBefore(row, max));
    if (leads) {
      const int32_t verdict = Verdict(sums, top_p, row.vocabulary);
      if (threadIdx.x == 0) s.verdict = verdict;
    }
    __syncthreads();
    if (s.verdict != kAskMore) return s.verdict;
  }
}

// Step 7 with what is left of the filters, a cut or top-p alone; kAnyId where that takes the cut of
// top-p, or the draw without a list. Only rank 0's first warp gets the id itself.
template <typename Row>
__device__ __forceinline__ int32_t DrawFromList(Row& row, const Key& key, const Cut& cut,
                                                float top_p, bool hinted,
                                                const Extremes& extremes) {
  constexpr float kLargest = 1e5f;  // of a logit that Exp2's argument is exact enough for
  if (top_p < kLeastTopP || !(fabsf(extremes.max) < kLargest)) return kAnyId;
  Scratch& s = Own();
  if (threadIdx.x == 0) s.border_count = s.near_count = 0;
  const float bar = Bar(row, top_p, cut, extremes);
  const int count = CollectScores(row, key, cut, hinted, extremes.max, bar);
  int32_t id = kAnyId;
  if (count > 0 && count <= kBorder) {
    if (top_p >= 1.0f) {
      const bool decides = row.rank == 0 && threadIdx.x < 32;
      return decides ? BestBefore(count, {-INFINITY, kAnyId}).id : 0;
    }
    ShareList(row, count);
    id = Ask(row, top_p, extremes.max, count);
  }
  if (id == kAnyId) row.Sync();  // everyone has read the list
  return id;
}

}  // namespace hanlin::sampling

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_DRAW_LIST_CUH_
