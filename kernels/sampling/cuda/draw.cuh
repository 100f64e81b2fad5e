// The draw: the largest of logit + noise among the ids that a cut keeps. A thread takes the four
// ids of a Philox counter; only where a cheap bound says that one of them could win is its noise
// evaluated.
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_DRAW_CUH_
#define HANLIN_KERNELS_SAMPLING_CUDA_DRAW_CUH_

#include <cstdint>

#include "kernels/sampling/cuda/law.cuh"
#include "kernels/sampling/cuda/row.cuh"

namespace hanlin::sampling {

constexpr float kLog2E = 1.44269504f;

struct Key {
  uint64_t seed;
  uint64_t position;
  uint32_t choice;
};

// The best id so far by logit + noise.
struct Best {
  float score = -INFINITY;
  int32_t id = kAnyId;
};

template <typename T>
__device__ __forceinline__ T Choose(const T (&of)[4], int index) {
  return index < 2 ? (index == 0 ? of[0] : of[1]) : (index == 2 ? of[2] : of[3]);
}

// The first of the four ids of a counter, in its slice; the others follow 16 apart.
__device__ __forceinline__ int IndexOf(int counter) { return counter / 16 * 64 + counter % 16; }

__device__ __forceinline__ float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// A hint is a byte h for the least of a counter's four words: its float's exponent and three bits
// of the mantissa, rounded down, so that the noise of the four ids is at most kHintNoise - h *
// kHintStep. Written while the logits of a row come from memory, when there is little else to
// compute; Philox for every id afterwards costs more than reading them.
constexpr int kHintShift = 20;
constexpr int kLeastHint = 126 << 3;     // of the float 1/2, below every positive word
constexpr float kHintNoise = 22.87386f;  // 33 log(2), the largest noise
constexpr float kHintStep = 0.0866434f;  // log(2) / 8

__device__ __forceinline__ uint8_t HintOf(const uint32_t (&words)[4]) {
  const uint32_t least = min(min(words[0], words[1]), min(words[2], words[3]));
  const uint32_t bits = __float_as_uint(__uint2float_rn(least));
  return static_cast<uint8_t>(min(max(static_cast<int>(bits >> kHintShift) - kLeastHint, 0), 255));
}

template <typename Row>
__device__ __forceinline__ void WordsOf(const Row& row, const Key& key, int counter,
                                        uint32_t (&words)[4]) {
  law::Philox(row.first / 4 + counter, key.position, key.choice, key.seed, words);
}

// The noise is at most -log(v) of the uniform number v.
__device__ __forceinline__ float BoundOfScore(float logit, float v) {
  return fmaf(__log2f(v), -0.6931472f, logit);
}

// What the bounds of the noise may be off near scores of this size.
__device__ __forceinline__ float Margin(float max, float bar) {
  return fmaf(fabsf(max) + fabsf(bar), 2e-6f, 0.01f);
}

__device__ __forceinline__ float4 Larger(const float4& a, const float4& b) {
  return make_float4(fmaxf(a.x, b.x), fmaxf(a.y, b.y), fmaxf(a.z, b.z), fmaxf(a.w, b.w));
}

// use(counter) for the counters of which an id might score threshold() + kHintNoise: the largest
// logit, less the hint's steps where there are hints, is not below the threshold. A thread looks at
// four counters, 16 ids, at a time; of threads whose ids lie 64 apart every other one reads in
// another order, so that they do not meet in the banks.
template <typename Row, typename Threshold, typename Use>
__device__ __forceinline__ void ForEachNear(const Row& row, bool hinted, Threshold threshold,
                                            Use use) {
#pragma unroll 1
  for (int first = 4 * threadIdx.x; first < row.size / 4; first += 4 * kThreads) {
    const int begin = IndexOf(first), turned = first & 16;
    float4 reach = row.FourLogits(begin + turned);
#pragma unroll
    for (int w = 16; w < 64; w += 16) reach = Larger(reach, row.FourLogits(begin + (w ^ turned)));
    if (hinted) {
      const uchar4 hints = *reinterpret_cast<const uchar4*>(row.Hints() + first);
      reach.x = fmaf(hints.x, -kHintStep, reach.x);
      reach.y = fmaf(hints.y, -kHintStep, reach.y);
      reach.z = fmaf(hints.z, -kHintStep, reach.z);
      reach.w = fmaf(hints.w, -kHintStep, reach.w);
    }
    const float of[4] = {reach.x, reach.y, reach.z, reach.w};
    if (fmaxf(fmaxf(of[0], of[1]), fmaxf(of[2], of[3])) < threshold()) continue;
#pragma unroll 1
    for (int j = 0; j < 4; ++j) {
      if (!(Choose(of, j) < threshold())) use(first + j);
    }
  }
}

// Step 7 for the ids of a counter that might reach the bar, a score that some id of the block has.
template <typename Row>
__device__ __forceinline__ void Consider(const Row& row, const Key& key, const Cut& cut, float max,
                                         int counter, Best& best) {
  volatile uint32_t* bar = &Own().bar;
  uint32_t words[4];
  WordsOf(row, key, counter, words);
#pragma unroll 1
  for (int w = 0; w < 4; ++w) {
    const int index = IndexOf(counter) + 16 * w;
    const float v = law::Uniform(Choose(words, w));
    const float logit = row.Logits()[index];
    const float reached = law::FromOrdered(*bar);
    if (!(BoundOfScore(logit, v) + Margin(max, reached) >= reached)) continue;
    const int32_t id = row.first + index;
    if (!Keeps(cut, logit, id)) continue;
    const float score = logit + law::Gumbel(v);
    if (score > best.score || (score == best.score && id < best.id)) {
      best.score = score;
      best.id = id;
      atomicMax(&Own().bar, law::Ordered(score));
    }
  }
}

// Step 7. The largest logit is always kept; its score is the first bar.
template <typename Row>
__device__ __noinline__ int32_t Draw(Row row, Key key, Cut cut, bool hinted, Extremes extremes) {
  Best best;
  best.id = extremes.max_id;
  best.score = extremes.max + law::Noise(best.id, key.position, key.choice, key.seed);
  if (threadIdx.x == 0) Own().bar = law::Ordered(best.score);
  __syncthreads();
  const auto threshold = [&] {
    const float bar = law::FromOrdered(*const_cast<volatile uint32_t*>(&Own().bar));
    const float noisy = bar - Margin(extremes.max, bar) - kHintNoise;
    return hinted ? noisy : fmaxf(cut.value, noisy);  // hints have lowered what is compared
  };
  ForEachNear(row, hinted, threshold,
              [&](int counter) { Consider(row, key, cut, extremes.max, counter, best); });
  return PickId(row.Largest(Pick(best.score, best.id)));
}

}  // namespace hanlin::sampling

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_DRAW_CUH_
