// Vector loops of the sampler, compiled once per instruction set. philox.h defines the noise bit by
// bit.
#include <math.h>

#include "kernels/base/simd.h"
#include "kernels/base/simd_math.h"
#include "kernels/sampling/sampling_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

constexpr float kLargestNoise = 23.0f;  // above -log(2^-33), the noise of r = 0

// The four output words of 16 Philox4x32-10 counters that differ in their first word.
struct PhiloxWords {
  I words[4];
};
PhiloxWords Philox(I counter, const DrawKey& key) {
  I c0 = counter;
  I c1 = SetI(static_cast<uint32_t>(key.position));
  I c2 = SetI(static_cast<uint32_t>(key.position >> 32));
  I c3 = SetI(key.choice);
  auto k0 = static_cast<uint32_t>(key.seed);
  auto k1 = static_cast<uint32_t>(key.seed >> 32);
  const I m0 = SetI(0xd2511f53u);
  const I m1 = SetI(0xcd9e8d57u);
  for (int round = 0; round < 10; ++round) {
    const I high0 = MulHigh(m0, c0);
    const I low0 = MulLow(m0, c0);
    const I high1 = MulHigh(m1, c2);
    const I low1 = MulLow(m1, c2);
    c0 = XorI(XorI(high1, c1), SetI(k0));
    c1 = low1;
    c2 = XorI(XorI(high0, c3), SetI(k1));
    c3 = low0;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  return {{c0, c1, c2, c3}};
}

HANLIN_KERNEL_INLINE F Gumbel(I random) {
  F v = FusedFma(UnsignedToF(random), Set1(0x1p-32f), Set1(0x1p-33f));
  v = Min(v, Set1(1.0f - 0x1p-24f));
  const F y = Sub(Set1(1.0f), v);
  const F lost = Sub(Sub(Set1(1.0f), y), v);  // what the rounding of y lost
  const F e = Sub(Zero(), Add(LogPositive(y), Div(lost, y)));
  return Sub(Zero(), LogPositive(e));
}

void Scale(const float* logits, int64_t count, float factor, float* out) {
  const F lowest = Set1(-INFINITY);
  const auto scaled = [&](F x) HANLIN_LAMBDA_INLINE {
    return Select(Less(lowest, x), Mul(x, Set1(factor)), lowest);
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(out + i, scaled(Load(logits + i)));
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    StoreFirst(out + i, scaled(LoadFirst(logits + i, rest)), rest);
  }
}

void GroupMax(const float* logits, int64_t count, float* maxima) {
  for (int64_t begin = 0; begin < count; begin += kLogitGroup) {
    // vmaxps returns its second operand when one is NaN.
    F max = Set1(-INFINITY);
    for (int64_t i = begin; i < begin + kLogitGroup && i < count; i += kLanes) {
      if (i + kLanes <= count) {
        max = Max(Load(logits + i), max);
      } else {
        const int rest = static_cast<int>(count - i);
        max = Max(Select(FirstLanes(rest), LoadFirst(logits + i, rest), max), max);
      }
    }
    maxima[begin / kLogitGroup] = ReduceMax(max);
  }
}

double SumExp(const float* logits, int64_t count, float max) {
  constexpr int64_t kChunk = 1024;  // fp32 within a chunk, double across
  const F shift = Set1(max);
  double total = 0.0;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t end = begin + kChunk < count ? begin + kChunk : count;
    F sum = Zero();
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) sum = Add(sum, Exp(Sub(Load(logits + i), shift)));
    if (i < end) {
      const int rest = static_cast<int>(end - i);
      sum =
          Add(sum, Select(FirstLanes(rest), Exp(Sub(LoadFirst(logits + i, rest), shift)), Zero()));
    }
    total += static_cast<double>(ReduceAdd(sum));
  }
  return total;
}

// Exp of simd_math.h for x in [-30, 0], in fused multiply-adds under every instruction set.
HANLIN_KERNEL_INLINE I Weight(F x) {
  x = Max(x, Set1(kLowestWeighed));
  const I n = RoundToI(Mul(x, Set1(0x1.715476p+0f)));
  const F nf = SignedToF(n);
  F r = FusedFma(nf, Set1(-kLn2High), x);
  r = FusedFma(nf, Set1(-kLn2Low), r);
  F q = Set1(0.000198912685101f);
  q = FusedFma(q, r, Set1(0.001393390005f));
  q = FusedFma(q, r, Set1(0.0083333106746f));
  q = FusedFma(q, r, Set1(0.0416664626662f));
  q = FusedFma(q, r, Set1(0.166666666819f));
  q = FusedFma(q, r, Set1(0.500000001369f));
  const F power = Add(FusedFma(Mul(r, r), q, r), Set1(1.0f));
  return RoundToI(Mul(BitsToF(AddI(BitsToI(power), ShiftLeft23(n))), Set1(kWeightOfMax)));
}

uint64_t Weigh(const float* logits, int64_t count, float max, uint32_t* weights) {
  const F shift = Set1(max);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    StoreI(weights + i, Weight(Sub(Load(logits + i), shift)));
  if (i < count) {
    uint32_t last[kLanes];
    StoreI(last, Weight(Sub(LoadFirst(logits + i, static_cast<int>(count - i)), shift)));
    for (int lane = 0; i < count; ++i, ++lane) weights[i] = last[lane];
  }
  uint64_t total[4] = {};
  for (i = 0; i + 4 <= count; i += 4) {
    for (int j = 0; j < 4; ++j) total[j] += weights[i + j];
  }
  for (; i < count; ++i) total[0] += weights[i];
  return total[0] + total[1] + total[2] + total[3];
}

void Noise(const DrawKey& key, const int32_t* ids, float* noise) {
  uint32_t counters[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const auto id = static_cast<uint32_t>(ids[i]);
    counters[i] = id / 64 * 16 + id % 16;
  }
  const PhiloxWords random = Philox(LoadI(counters), key);
  uint32_t words[4][kLanes];
  for (int w = 0; w < 4; ++w) StoreI(words[w], random.words[w]);
  uint32_t chosen[kLanes];
  for (int i = 0; i < kLanes; ++i) chosen[i] = words[static_cast<uint32_t>(ids[i]) / 16 % 4][i];
  Store(noise, Gumbel(LoadI(chosen)));
}

DrawResult Draw(const DrawKey& key, const float* logits, int64_t count, const float* maxima,
                DrawResult start) {
  uint32_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<uint32_t>(i);
  const I lane = LoadI(lanes);
  DrawResult best = start;
  for (int64_t begin = 0; begin < count; begin += kLogitGroup) {
    const int64_t group = begin / kLogitGroup;
    if (maxima[group] + kLargestNoise < best.score) continue;
    const PhiloxWords random = Philox(AddI(lane, SetI(static_cast<uint32_t>(group * 16))), key);
    for (int w = 0; w < 4 && begin + w * kLanes < count; ++w) {
      const int64_t first = begin + w * kLanes;
      const int valid = count - first < kLanes ? static_cast<int>(count - first) : kLanes;
      const F logit = valid == kLanes ? Load(logits + first) : LoadFirst(logits + first, valid);
      float scores[kLanes];
      const F score = Add(logit, Gumbel(random.words[w]));
      if (All(Less(score, Set1(best.score)))) continue;
      Store(scores, score);
      for (int i = 0; i < valid; ++i) {
        const auto id = static_cast<int32_t>(first + i);
        if (scores[i] > best.score || (scores[i] == best.score && id < best.id))
          best = {scores[i], id};
      }
    }
  }
  return best;
}

}  // namespace

extern const SamplingKernels kSamplingKernels = {Scale, GroupMax, SumExp, Weigh, Noise, Draw};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
