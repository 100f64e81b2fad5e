// Top-k and top-p are one search: ids ordered by logit descending, then id ascending, each with a
// mass (1, or the integer weight of the law); the cut is the last id before which lies a mass of at
// most a limit. Mass is summed in bins of the logit by shared memory atomics, exact because it is
// integer; the ids of the bin in which the limit is crossed are few and are compared pairwise.
// Where they are many a finer histogram of that bin follows; where even that does not part them
// (ties in the thousands) the logit and then the id are bisected. A small count needs no histogram
// of all ids: the k-th largest of the threads' maxima bounds the k-th largest logit from below.
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_CUT_CUH_
#define HANLIN_KERNELS_SAMPLING_CUDA_CUT_CUH_

#include <cstdint>

#include "kernels/sampling/cuda/law.cuh"
#include "kernels/sampling/cuda/row.cuh"

namespace hanlin::sampling {

enum class Mass { kCount, kWeight };

// What a search looks at.
struct Search {
  float top_p;     // kWeight: the limit is top_p * all mass
  uint64_t limit;  // kCount: given
  float floor;     // smaller logits do not take part
  float max, scale;
  int coarse_bin;  // the one that the fine level divides

  // Position on the scale of the bins: falls with x.
  __device__ __forceinline__ float Place(float x) const {
    return fminf((max - x) * scale, kBins - 1.0f);
  }
  static __device__ __forceinline__ int Round(float place) {
    return static_cast<int>(__float_as_uint(place + 0x1p23f) - 0x4b000000u);
  }
  // The bin of this level; -1 when x lies in another coarse bin.
  template <bool kCoarse>
  __device__ __forceinline__ int BinOf(float x) const {
    const float place = Place(x);
    const int bin = Round(place);
    if (kCoarse) return bin;
    if (bin != coarse_bin) return -1;
    return Round(fminf((place - static_cast<float>(bin) + 0.5f) * kBins, kBins - 1.0f));
  }
  template <Mass kMass>
  __device__ __forceinline__ uint32_t MassOf(float x) const {
    return kMass == Mass::kCount ? 1 : law::Weight(x - max);
  }
};

__device__ __forceinline__ void ClearBins() {
  Scratch& s = Own();
  s.low[threadIdx.x] = 0;
  s.high[threadIdx.x] = 0;
  if (threadIdx.x == 0) s.border_count = 0;
  __syncthreads();
}

template <Mass kMass, bool kCoarse, typename Row>
__device__ __forceinline__ void Histogram(const Row& row, const Search& search) {
  Scratch& s = Own();
  ClearBins();
#pragma unroll 1
  for (int i = 4 * threadIdx.x; i < row.size; i += 4 * kThreads) {
    const float4 four = row.FourLogits(i);
    const float x[4] = {four.x, four.y, four.z, four.w};
    if (fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3])) < search.floor) continue;
    int bin[4];
    uint32_t mass[4], old[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      bin[j] = search.BinOf<kCoarse>(x[j]);
      mass[j] = search.MassOf<kMass>(x[j]);
      if (x[j] < search.floor || bin[j] < 0) mass[j] = 0;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (mass[j] > 0) old[j] = atomicAdd(&s.low[bin[j]], mass[j]);
    }
    if constexpr (kMass == Mass::kWeight) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (mass[j] > 0 && old[j] + mass[j] < old[j]) atomicAdd(&s.high[bin[j]], 1);
      }
    }
  }
  row.Sync();
}

// Finds the bin in which the limit is crossed, `before` being the mass ahead of all bins; false
// when all mass lies within the limit. The limit of kWeight is set at the coarse level.
template <Mass kMass, bool kCoarse, typename Row>
__device__ __forceinline__ bool FindCrossing(const Row& row, Search& search, uint64_t& before) {
  Scratch& s = Own();
  const int bin = threadIdx.x, lane = bin % 32, warp = bin / 32;
  uint64_t mass = 0;
  if (row.ranks == 1) {
    mass = static_cast<uint64_t>(s.high[bin]) << 32 | s.low[bin];
  } else {
#pragma unroll
    for (int r = 0; r < kSampleMaxCluster; ++r) {
      if (r < row.ranks) {
        mass += static_cast<uint64_t>(*row.At(&s.high[bin], r)) << 32 | *row.At(&s.low[bin], r);
      }
    }
  }
  uint64_t through = mass;
#pragma unroll
  for (int offset = 1; offset < 32; offset <<= 1) {
    const uint64_t other = __shfl_up_sync(kFull, through, offset);
    if (lane >= offset) through += other;
  }
  if (lane == 31) s.scan[warp] = through;
  if (bin == 0) s.crossing_bin = -1;
  __syncthreads();
  const uint64_t total = before + WarpSum(s.scan[lane]);
  through += before + WarpSum(lane < warp ? s.scan[lane] : 0);
  if (kMass == Mass::kWeight && kCoarse) {
    search.limit =
        static_cast<uint64_t>(static_cast<double>(search.top_p) * static_cast<double>(total));
  }
  if (through - mass <= search.limit && through > search.limit) {
    s.crossing_bin = bin;
    s.crossing_before = through - mass;
  }
  __syncthreads();
  if (s.crossing_bin < 0) return false;
  before = s.crossing_before;
  return true;
}

// Puts the ids of the bins [first, last] into rank 0's border; how many there are. The range of
// logits that is looked at more closely is a little wider than the bins.
template <Mass kMass, bool kCoarse, typename Row>
__device__ __forceinline__ int CollectBorder(const Row& row, const Search& search, int first,
                                             int last) {
  Scratch* lead = row.At(&Own(), 0);
  float least = -INFINITY, most = INFINITY;
  if (kCoarse && last < kBins - 1) {
    const float slack = fabsf(search.max) * 1e-6f;
    least = search.max - (static_cast<float>(last) + 0.6f) / search.scale - slack;
    if (first > 0) most = search.max - (static_cast<float>(first) - 0.6f) / search.scale + slack;
  }
  least = fmaxf(least, search.floor);
#pragma unroll 1
  for (int i = 4 * threadIdx.x; i < row.size; i += 4 * kThreads) {
    const float4 four = row.FourLogits(i);
    const float x[4] = {four.x, four.y, four.z, four.w};
    if (fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3])) < least) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (x[j] < least || x[j] > most) continue;
      const int bin = search.BinOf<kCoarse>(x[j]);
      if (bin < first || bin > last) continue;
      const int at = atomicAdd(&lead->border_count, 1);
      if (at >= kBorder) continue;
      lead->border_x[at] = x[j];
      lead->border_id[at] = row.first + i + j;
      lead->border_mass[at] = search.MassOf<kMass>(x[j]);
    }
  }
  row.Sync();
  return lead->border_count;
}

__device__ __forceinline__ bool ComesBefore(float x, int32_t id, float y, int32_t other) {
  return x > y || (x == y && id < other);
}

// The cut within the border: a warp per id adds up what comes before it.
template <typename Row>
__device__ __forceinline__ Cut CutBorder(const Row& row, int count, uint64_t before,
                                         uint64_t limit) {
  Scratch& s = Own();
  if (row.rank == 0) {
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < count; i += kWarps) {
      const float x = s.border_x[i];
      const int32_t id = s.border_id[i];
      uint64_t mass = 0;
#pragma unroll 1
      for (int j = lane; j < count; j += 32) {
        if (ComesBefore(s.border_x[j], s.border_id[j], x, id)) mass += s.border_mass[j];
      }
      mass = WarpSum(mass) + before;
      // One id alone: masses are positive where the limit is crossed.
      if (mass <= limit && mass + s.border_mass[i] > limit && lane < row.ranks) {
        *row.At(&s.cut, lane) = {x, id};
      }
    }
  }
  row.Sync();
  return s.cut;
}

// Mass of the ids that take part and satisfy `test`.
template <Mass kMass, typename Row, typename Test>
__device__ __forceinline__ uint64_t SumWhere(Row& row, const Search& search, Test test) {
  uint64_t mass = 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < row.size; i += kThreads) {
    const float x = row.Logits()[i];
    if (x >= search.floor && test(x, row.first + i)) mass += search.MassOf<kMass>(x);
  }
  return row.Sum(mass);
}

// The cut by bisection of the logit, then of the id: slow, for ties in masses.
template <Mass kMass, typename Row>
__device__ __noinline__ Cut Bisect(Row row, Search search) {
  uint32_t low = law::Ordered(-INFINITY), high = law::Ordered(search.max);
  while (low < high) {  // the smallest key above which the mass is within the limit
    const uint32_t middle = low + (high - low) / 2;
    const uint64_t above =
        SumWhere<kMass>(row, search, [&](float x, int32_t) { return law::Ordered(x) > middle; });
    if (above <= search.limit) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  const Cut value = {law::FromOrdered(low), 0};
  int32_t first = 0, last = row.vocabulary - 1;
  while (first < last) {  // the first id through which the mass exceeds the limit
    const int32_t middle = first + (last - first) / 2;
    const uint64_t through = SumWhere<kMass>(row, search, [&](float x, int32_t id) {
      return Keeps({value.value, middle}, x, id);
    });
    if (through > search.limit) {
      last = middle;
    } else {
      first = middle + 1;
    }
  }
  row.Sync();  // the caller's turn of the reductions' buffers is another
  return {value.value, first};
}

// For a small count: a histogram of the threads' maxima alone. The bin of the limit's maximum is
// not above that of the limit's id. False when too many ids lie down to that bin.
template <typename Row>
__device__ __forceinline__ bool FindCutByMaxima(const Row& row, Search& search, float thread_max,
                                                Cut& cut) {
  ClearBins();
  atomicAdd(&Own().low[search.BinOf<true>(thread_max)], 1);
  row.Sync();
  uint64_t before = 0;
  if (!FindCrossing<Mass::kCount, true>(row, search, before)) return false;
  const int bin = Own().crossing_bin;
  const int count = CollectBorder<Mass::kCount, true>(row, search, 0, bin);
  if (count <= kBorder) {
    cut = CutBorder(row, count, 0, search.limit);
    return true;
  }
  row.Sync();  // everyone has read the count
  return false;
}

// The rest of a search whose coarse crossing bin holds too many ids.
template <Mass kMass, typename Row>
__device__ __noinline__ Cut FindFineCut(Row row, Search search, uint64_t before) {
  Histogram<kMass, false>(row, search);
  FindCrossing<kMass, false>(row, search, before);  // there is one: this bin was the coarse one's
  const int bin = Own().crossing_bin;
  const int count = CollectBorder<kMass, false>(row, search, bin, bin);
  if (count <= kBorder) return CutBorder(row, count, before, search.limit);
  row.Sync();  // everyone has read the count
  return Bisect<kMass>(row, search);
}

// The last id before which lies at most the limit; everything when all mass lies within it.
template <Mass kMass, typename Row>
__device__ __forceinline__ Cut FindCut(const Row& row, float top_p, uint64_t limit, float floor,
                                       const Extremes& extremes) {
  // Weights end at 21.5 below the largest logit; counting goes further down, not to -infinity.
  const float range = kMass == Mass::kWeight ? 22.0f : 64.0f;
  const float spread = fminf(fmaxf(extremes.max - extremes.min, 1e-30f), range);
  Search search = {top_p, limit, floor, extremes.max, (kBins - 1) / spread, 0};
  Cut cut;
  if (kMass == Mass::kCount && limit < kBorder / 2 &&
      FindCutByMaxima(row, search, extremes.thread_max, cut)) {
    return cut;
  }
  uint64_t before = 0;
  Histogram<kMass, true>(row, search);
  if (!FindCrossing<kMass, true>(row, search, before)) return {-INFINITY, kAnyId};
  search.coarse_bin = Own().crossing_bin;
  const int count = CollectBorder<kMass, true>(row, search, search.coarse_bin, search.coarse_bin);
  if (count <= kBorder) return CutBorder(row, count, before, search.limit);
  row.Sync();  // everyone has read the count
  return FindFineCut<kMass>(row, search, before);
}

}  // namespace hanlin::sampling

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_CUT_CUH_
