// The draw: the largest of logit + noise among the ids that a cut keeps. A thread takes the four
// ids of a Philox counter; only where a cheap bound says that one of them could win is its noise
// evaluated.
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_DRAW_CUH_
#define HANLIN_KERNELS_SAMPLING_CUDA_DRAW_CUH_

#include <cstdint>

#include "kernels/sampling/cuda/law.cuh"
#include "kernels/sampling/cuda/row.cuh"

namespace hanlin::sampling {

constexpr float kLargestNoise = 23.0f;
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

// A thread takes the four ids of a Philox counter, 16 apart; counters go round the threads.
__device__ __forceinline__ int IndexOf(int counter) { return counter / 16 * 64 + counter % 16; }

// The logits of a counter; -infinity beyond the slice. Half a warp reads them in another order, so
// that the two halves, 64 logits apart, do not meet in the banks.
template <typename Row>
__device__ __forceinline__ void ReadFour(const Row& row, int counter, int counters, float (&x)[4]) {
  const float* logits = row.Logits() + IndexOf(counter);
  const bool swapped = counter % 32 >= 16;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    x[w] = counter < counters ? logits[16 * (swapped ? w ^ 1 : w)] : -INFINITY;
  }
  if (swapped) {
    const float first = x[0], third = x[2];
    x[0] = x[1];
    x[1] = first;
    x[2] = x[3];
    x[3] = third;
  }
}

__device__ __forceinline__ float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// A hint is a byte for the least of a counter's four words: its float's exponent and three bits of
// the mantissa, rounded down, so that what the hint rules out the words rule out. Written while the
// logits of many rows come from memory, when there is nothing else to compute; Philox for every id
// afterwards costs more than reading them.
constexpr int kHintShift = 20;
constexpr int kLeastHint = 126 << 3;  // of the float 1/2, below every positive word

__device__ __forceinline__ uint32_t Least(const uint32_t (&words)[4]) {
  return min(min(words[0], words[1]), min(words[2], words[3]));
}
__device__ __forceinline__ uint8_t HintOf(const uint32_t (&words)[4]) {
  const uint32_t bits = __float_as_uint(__uint2float_rn(Least(words)));
  return static_cast<uint8_t>(min(max(static_cast<int>(bits >> kHintShift) - kLeastHint, 0), 255));
}
__device__ __forceinline__ float LeastOfHint(uint8_t hint) {
  return __uint_as_float(static_cast<uint32_t>(hint + kLeastHint) << kHintShift);
}

// The ids of a counter that might score `bar` or more: use(id, logit, uniform number of its noise).
// The noise is at most -log(v) of the uniform number v, so that few words are small enough; the
// others are spared the exact noise, and with hints the words themselves. Logits below `least` may
// be left out.
template <typename Row, typename Use>
__device__ __forceinline__ void ForEachNear(const Row& row, const Key& key, bool hinted,
                                            int counter, const float (&x)[4], float least,
                                            float bar, Use use) {
  const float largest = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
  const float margin = fmaf(fabsf(largest) + fabsf(bar), 1e-6f, 0.01f);
  const float reach = Exp2((largest - bar + margin) * kLog2E);
  if (!(largest >= least && largest + kLargestNoise >= bar)) return;
  if (hinted && LeastOfHint(row.Hints()[counter]) * 0x1p-32f > reach) return;
  uint32_t words[4];
  law::Philox(row.first / 4 + counter, key.position, key.choice, key.seed, words);
  if (__uint2float_rn(Least(words)) * 0x1p-32f > reach) return;
#pragma unroll 1
  for (int w = 0; w < 4; ++w) {
    const float v = law::Uniform(Choose(words, w));
    const float logit = Choose(x, w);
    if (!(fmaf(__log2f(v), -0.6931472f, logit) + margin >= bar)) continue;
    use(row.first + IndexOf(counter) + 16 * w, logit, v);
  }
}

// Step 7 for the four ids of a counter; the bar is a score that some warp of the block has found.
// All lanes of a warp come here together.
template <typename Row>
__device__ __forceinline__ void Consider(const Row& row, const Key& key, const Cut& cut,
                                         bool hinted, int counter, const float (&x)[4],
                                         Best& best) {
  Scratch& s = Own();
  const float bar = law::FromOrdered(*const_cast<volatile uint32_t*>(&s.bar));
  const float before = best.score;
  ForEachNear(row, key, hinted, counter, x, cut.value, bar, [&](int32_t id, float logit, float v) {
    if (!Keeps(cut, logit, id)) return;
    const float score = logit + law::Gumbel(v);
    if (score > best.score || (score == best.score && id < best.id)) {
      best.score = score;
      best.id = id;
    }
  });
  if (__any_sync(kFull, best.score > before)) {
    const uint32_t reached = __reduce_max_sync(kFull, law::Ordered(best.score));
    if (threadIdx.x % 32 == 0) atomicMax(&s.bar, reached);
  }
}

// Step 7. The largest logit is always kept; its score is the first bar.
template <typename Row>
__device__ __forceinline__ int32_t Draw(Row& row, const Key& key, const Cut& cut, bool hinted,
                                        const Extremes& extremes) {
  Best best;
  best.id = extremes.max_id;
  best.score = extremes.max + law::Noise(best.id, key.position, key.choice, key.seed);
  if (threadIdx.x == 0) Own().bar = law::Ordered(best.score);
  __syncthreads();
  const int counters = row.size / 4;
  for (int base = threadIdx.x / 32 * 32; base < counters; base += kThreads) {
    const int counter = base + threadIdx.x % 32;
    float x[4];
    ReadFour(row, counter, counters, x);
    Consider(row, key, cut, hinted, counter, x, best);
  }
  return PickId(row.Largest(Pick(best.score, best.id)));
}

}  // namespace hanlin::sampling

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_DRAW_CUH_
