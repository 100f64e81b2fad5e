// The sampling kernel. A cluster of blocks holds one row; block `rank` the ids [rank * slice, ...).
// Shared memory: Scratch, then float [slice], the slice's logits after steps 1 to 3 of the law;
// beyond the vocabulary -infinity up to a multiple of 64 ids.
//
// Top-k and top-p are one search: ids ordered by logit descending, then id ascending, each with a
// mass (1, or the integer weight of the law); the cut is the last id before which lies a mass of at
// most a limit. Mass is summed in bins of the logit by shared memory atomics, exact because it is
// integer; the ids of the bin in which the limit is crossed are few and are compared pairwise.
// Where they are many a finer histogram of that bin follows; where even that does not part them
// (ties in the thousands) the logit and then the id are bisected.
#include <cooperative_groups.h>

#include "kernels/base/cuda/ptx.cuh"
#include "kernels/sampling/cuda/law.cuh"
#include "kernels/sampling/cuda/sample_params.h"

namespace hanlin {
namespace {

namespace cg = cooperative_groups;

constexpr int kThreads = kSampleThreads;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = kThreads;  // a thread scans one
constexpr int kBorder = 256;     // ids compared pairwise
constexpr int kLevels = 2;       // of histograms
constexpr float kLargestNoise = 23.0f;
constexpr uint32_t kFull = 0xffffffffu;
constexpr int32_t kAnyId = 0x7fffffff;

// Keeps x of id when x > value, or x == value and id <= this id.
struct Cut {
  float value;
  int32_t id;
};

__device__ __forceinline__ bool Keeps(const Cut& cut, float x, int32_t id) {
  return x > cut.value || (x == cut.value && id <= cut.id);
}

struct Scratch {
  uint32_t low[kBins];  // mass of the bins, 64 bits in two halves
  uint32_t high[kBins];
  uint64_t warp[2][kWarps];  // of block reductions, taken in turn
  uint64_t scan[kWarps];
  uint64_t peer[2];  // this block's share of a cluster's reduction, in turn
  uint64_t crossing_before;
  uint64_t crossing_limit;
  int32_t crossing_bin;
  int32_t border_count;  // in rank 0, as is the border
  Cut cut;
  float border_x[kBorder];
  int32_t border_id[kBorder];
  uint32_t border_mass[kBorder];
};
static_assert(sizeof(Scratch) == kSampleScratchBytes && sizeof(Scratch) % 16 == 0);

enum class Mass { kCount, kWeight };

// One row as a block sees it.
struct Row {
  const CudaSampleParams& p;
  Scratch& s;
  float* x;       // [size] in shared memory
  int size;       // of this block's slice, a multiple of 64
  int32_t first;  // its first id
  int rank;
  int ranks;
  int turn = 0;  // of the reductions' buffers

  __device__ void Sync() const {
    if (ranks == 1) {
      __syncthreads();
    } else {
      cg::this_cluster().sync();
    }
  }
  template <typename T>
  __device__ T* At(T* mine, int other) const {
    return ranks == 1 ? mine : cg::this_cluster().map_shared_rank(mine, other);
  }

  // Combines a value of every thread of the cluster; everyone gets the result.
  template <typename T, typename Op>
  __device__ T All(T value, Op op) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    turn ^= 1;
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
      value = op(value, __shfl_xor_sync(kFull, value, offset));
    }
    auto* warps = reinterpret_cast<T*>(s.warp[turn]);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = warps[threadIdx.x % 32];
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
      value = op(value, __shfl_xor_sync(kFull, value, offset));
    }
    if (ranks == 1) return value;
    if (threadIdx.x == 0) *reinterpret_cast<T*>(&s.peer[turn]) = value;
    Sync();
    value = *reinterpret_cast<T*>(At(&s.peer[turn], 0));
    for (int r = 1; r < ranks; ++r) value = op(value, *reinterpret_cast<T*>(At(&s.peer[turn], r)));
    return value;
  }
};
static_assert(kWarps == 32, "Row::All reads one value per lane");

struct Largest {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Plus {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// Orders (value, id) by value ascending, then id descending, so that the largest is the law's pick.
__device__ __forceinline__ uint64_t Pick(float value, int32_t id) {
  return static_cast<uint64_t>(law::Ordered(value)) << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ float PickValue(uint64_t pick) {
  return law::FromOrdered(static_cast<uint32_t>(pick >> 32));
}
__device__ __forceinline__ int32_t PickId(uint64_t pick) {
  return static_cast<int32_t>(~static_cast<uint32_t>(pick));
}

struct Extremes {
  float max;
  int32_t max_id;
  float min;
};

// Steps 2 and 3 on a logit to which its bias was added.
struct Adjuster {
  float scale;
  float repetition, presence, frequency;
  bool penalties;

  __device__ __forceinline__ float operator()(float x, uint32_t count) const {
    if (penalties && count > 0) {
      x = x > 0.0f ? x / repetition : x * repetition;
      x -= frequency * static_cast<float>(count) + presence;
    }
    return x > -INFINITY ? x * scale : -INFINITY;
  }
};

// Running maximum with its first id, and minimum.
struct Tracker {
  float max = -INFINITY;
  int32_t id = kAnyId;
  float min = INFINITY;

  __device__ __forceinline__ void Take(float x, int32_t of) {
    if (x > max) {
      max = x;
      id = of;
    }
    min = fminf(min, x);
  }
};

// Raw logits of the slice go through `use`(index in the slice, logit), -infinity beyond the
// vocabulary; `use4`(index, four logits) where a vector can be loaded.
template <typename Use4>
__device__ __forceinline__ void ForEachLogit(const Row& row, const float* logits, Use4 use4) {
  const float* slice = logits + row.first;
  const int valid = min(row.size, row.p.vocabulary - row.first);
  const int vectors = reinterpret_cast<uintptr_t>(slice) % 16 == 0 ? valid / 4 : 0;
  constexpr int kUnroll = 4;
  for (int v = threadIdx.x; v < vectors; v += kUnroll * kThreads) {
    float4 x[kUnroll];
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      if (v + j * kThreads < vectors) {
        x[j] = __ldcg(reinterpret_cast<const float4*>(slice) + v + j * kThreads);
      }
    }
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      if (v + j * kThreads < vectors) use4(4 * (v + j * kThreads), x[j]);
    }
  }
  for (int v = vectors + threadIdx.x; v < row.size / 4; v += kThreads) {
    float x[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = 4 * v + j < valid ? __ldcg(slice + 4 * v + j) : -INFINITY;
    use4(4 * v, make_float4(x[0], x[1], x[2], x[3]));
  }
}

__device__ __forceinline__ Extremes Combine(Row& row, const Tracker& t) {
  const uint64_t pick = row.All(Pick(t.max, t.id), Largest());
  // The minimum's order is reversed to be a maximum, too.
  const uint32_t low = row.All(~law::Ordered(t.min), Largest());
  return {PickValue(pick), PickId(pick), law::FromOrdered(~low)};
}

// Adds bias and bans to the raw logits in shared memory.
__device__ void ApplyBias(const Row& row, const SampleSlot& slot, int32_t banned) {
  __syncthreads();
  for (int i = threadIdx.x; i < slot.bias_count; i += kThreads) {
    const SampleBias bias = row.p.bias[slot.bias_begin + i];
    const int64_t at = static_cast<int64_t>(bias.id) - row.first;
    if (at >= 0 && at < row.size) row.x[at] += bias.bias;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < banned; i += kThreads) {
    const int64_t at = static_cast<int64_t>(row.p.banned[slot.banned_begin + i]) - row.first;
    if (at >= 0 && at < row.size) row.x[at] = -INFINITY;
  }
  __syncthreads();
}

// Steps 1 to 3 into shared memory.
__device__ Extremes Load(Row& row, const float* logits, const SampleSlot& slot, int32_t position) {
  const Adjuster adjust = {slot.greedy ? 1.0f : slot.scale, slot.repetition_penalty,
                           slot.presence_penalty, slot.frequency_penalty, slot.counts_row >= 0};
  const uint16_t* counts =
      adjust.penalties
          ? row.p.counts + static_cast<int64_t>(slot.counts_row) * row.p.vocabulary + row.first
          : nullptr;
  const int valid = row.p.vocabulary - row.first;
  const int32_t banned = position < slot.banned_before ? slot.banned_count : 0;
  Tracker tracker;
  const auto take = [&](int i, float4 raw) {
    float x[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t count = adjust.penalties && i + j < valid ? __ldcg(counts + i + j) : 0;
      x[j] = adjust(x[j], count);
      tracker.Take(x[j], row.first + i + j);
    }
    *reinterpret_cast<float4*>(row.x + i) = make_float4(x[0], x[1], x[2], x[3]);
  };
  if (slot.bias_count + banned == 0) {
    ForEachLogit(row, logits, take);
  } else {
    ForEachLogit(row, logits,
                 [&](int i, float4 raw) { *reinterpret_cast<float4*>(row.x + i) = raw; });
    ApplyBias(row, slot, banned);
    for (int i = 4 * threadIdx.x; i < row.size; i += 4 * kThreads) {
      take(i, *reinterpret_cast<const float4*>(row.x + i));
    }
  }
  return Combine(row, tracker);
}

// The largest raw logit; nothing is kept in shared memory.
__device__ int32_t Greedy(Row& row, const float* logits) {
  Tracker tracker;
  ForEachLogit(row, logits, [&](int i, float4 raw) {
    tracker.Take(raw.x, row.first + i);
    tracker.Take(raw.y, row.first + i + 1);
    tracker.Take(raw.z, row.first + i + 2);
    tracker.Take(raw.w, row.first + i + 3);
  });
  return PickId(row.All(Pick(tracker.max, tracker.id), Largest()));
}

// What a search looks at.
struct Search {
  Mass mass;
  float top_p;     // kWeight: the limit is top_p * all mass
  uint64_t limit;  // kCount: given
  float floor;     // smaller logits do not take part
  float max, scale;
  int level;
  int32_t path[kLevels];  // bins of the coarser levels

  __device__ __forceinline__ uint32_t MassOf(float x) const {
    return mass == Mass::kCount ? 1 : law::Weight(x - max);
  }
  // Bin of this level; -1 when x lies in another bin of a coarser one. Falls with x.
  __device__ __forceinline__ int BinOf(float x) const {
    float t = fminf((max - x) * scale, kBins - 1.0f);
    for (int l = 0; l < level; ++l) {
      const float rounded = t + 0x1p23f;
      if (static_cast<int>(__float_as_uint(rounded) - 0x4b000000u) != path[l]) return -1;
      t = fminf((t - (rounded - 0x1p23f) + 0.5f) * kBins, kBins - 1.0f);
    }
    return static_cast<int>(__float_as_uint(t + 0x1p23f) - 0x4b000000u);
  }
};

__device__ void Histogram(Row& row, const Search& search) {
  Scratch& s = row.s;
  s.low[threadIdx.x] = 0;
  s.high[threadIdx.x] = 0;
  if (threadIdx.x == 0) s.border_count = 0;
  __syncthreads();
#pragma unroll 4
  for (int i = threadIdx.x; i < row.size; i += kThreads) {
    const float x = row.x[i];
    if (x < search.floor) continue;
    const int bin = search.BinOf(x);
    if (bin < 0) continue;
    const uint32_t mass = search.MassOf(x);
    if (mass == 0) continue;
    const uint32_t old = atomicAdd(&s.low[bin], mass);
    if (old + mass < old) atomicAdd(&s.high[bin], 1);
  }
  row.Sync();
}

// Finds the bin in which the limit is crossed, `before` being the mass ahead of all bins; false
// when all mass lies within the limit. The limit of kWeight is set by the first call.
__device__ bool FindCrossing(Row& row, Search& search, uint64_t& before) {
  Scratch& s = row.s;
  const int bin = threadIdx.x, lane = bin % 32, warp = bin / 32;
  uint64_t mass = 0;
  for (int r = 0; r < row.ranks; ++r) {
    mass += static_cast<uint64_t>(*row.At(&s.high[bin], r)) << 32 | *row.At(&s.low[bin], r);
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
  uint64_t warps = s.scan[lane];
#pragma unroll
  for (int offset = 1; offset < 32; offset <<= 1) {
    const uint64_t other = __shfl_up_sync(kFull, warps, offset);
    if (lane >= offset) warps += other;
  }
  const uint64_t total = before + __shfl_sync(kFull, warps, 31);
  const uint64_t ahead = __shfl_sync(kFull, warps, (warp + 31) % 32);
  through += before + (warp > 0 ? ahead : 0);
  if (search.level == 0 && search.mass == Mass::kWeight) {
    search.limit =
        static_cast<uint64_t>(static_cast<double>(search.top_p) * static_cast<double>(total));
  }
  if (through - mass <= search.limit && through > search.limit) {
    s.crossing_bin = bin;
    s.crossing_before = through - mass;
  }
  __syncthreads();
  before = s.crossing_bin >= 0 ? s.crossing_before : before;
  return s.crossing_bin >= 0;
}

// Puts the ids of the crossing bin into rank 0's border; how many there are.
__device__ int CollectBorder(Row& row, const Search& search, int bin) {
  Scratch* lead = row.At(&row.s, 0);
  for (int i = threadIdx.x; i < row.size; i += kThreads) {
    const float x = row.x[i];
    if (x < search.floor || search.BinOf(x) != bin) continue;
    const int at = atomicAdd(&lead->border_count, 1);
    if (at < kBorder) {
      lead->border_x[at] = x;
      lead->border_id[at] = row.first + i;
      lead->border_mass[at] = search.MassOf(x);
    }
  }
  row.Sync();
  return lead->border_count;
}

__device__ __forceinline__ bool ComesBefore(float x, int32_t id, float y, int32_t other) {
  return x > y || (x == y && id < other);
}

// The cut within the border: a warp per id adds up what comes before it.
__device__ Cut CutBorder(Row& row, int count, uint64_t before, uint64_t limit) {
  Scratch& s = row.s;
  if (row.rank == 0) {
    const int lane = threadIdx.x % 32;
    for (int i = threadIdx.x / 32; i < count; i += kWarps) {
      const float x = s.border_x[i];
      const int32_t id = s.border_id[i];
      uint64_t mass = 0;
      for (int j = lane; j < count; j += 32) {
        if (ComesBefore(s.border_x[j], s.border_id[j], x, id)) mass += s.border_mass[j];
      }
#pragma unroll
      for (int offset = 16; offset > 0; offset >>= 1) {
        mass += __shfl_xor_sync(kFull, mass, offset);
      }
      mass += before;
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
template <typename Test>
__device__ uint64_t Sum(Row& row, const Search& search, Test test) {
  uint64_t mass = 0;
  for (int i = threadIdx.x; i < row.size; i += kThreads) {
    const float x = row.x[i];
    if (x >= search.floor && test(x, row.first + i)) mass += search.MassOf(x);
  }
  return row.All(mass, Plus());
}

// The cut by bisection of the logit, then of the id: slow, for ties in masses.
__device__ Cut Bisect(Row& row, const Search& search) {
  uint32_t low = law::Ordered(-INFINITY), high = law::Ordered(search.max);
  while (low < high) {  // the smallest key above which the mass is within the limit
    const uint32_t middle = low + (high - low) / 2;
    const uint64_t above =
        Sum(row, search, [&](float x, int32_t) { return law::Ordered(x) > middle; });
    if (above <= search.limit) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  const float value = law::FromOrdered(low);
  int32_t first = 0, last = row.p.vocabulary - 1;
  while (first < last) {  // the first id through which the mass exceeds the limit
    const int32_t middle = first + (last - first) / 2;
    const uint64_t through = Sum(row, search, [&](float x, int32_t id) {
      return x > value || (x == value && id <= middle);
    });
    if (through > search.limit) {
      last = middle;
    } else {
      first = middle + 1;
    }
  }
  return {value, first};
}

// The last id before which lies at most the limit; everything when all mass lies within it.
__device__ Cut FindCut(Row& row, Search search, const Extremes& extremes) {
  // Weights end at 21.5 below the largest logit; counting goes further down, not to -infinity.
  const float range = search.mass == Mass::kWeight ? 22.0f : 64.0f;
  search.max = extremes.max;
  search.scale = (kBins - 1) / fminf(fmaxf(extremes.max - extremes.min, 1e-30f), range);
  uint64_t before = 0;
  for (search.level = 0; search.level < kLevels; ++search.level) {
    Histogram(row, search);
    if (!FindCrossing(row, search, before)) return {-INFINITY, kAnyId};
    const int bin = row.s.crossing_bin;
    const int count = CollectBorder(row, search, bin);
    if (count <= kBorder) return CutBorder(row, count, before, search.limit);
    row.Sync();  // everyone has read the count
    search.path[search.level] = bin;
  }
  return Bisect(row, search);
}

// Steps 4 to 6: what may be drawn.
__device__ Cut Filter(Row& row, const SampleSlot& slot, const Extremes& extremes) {
  Cut cut = {-INFINITY, kAnyId};
  if (slot.top_k > 0 && slot.top_k < row.p.vocabulary) {
    const Search search = {Mass::kCount, 0.0f, static_cast<uint64_t>(slot.top_k - 1), -INFINITY};
    cut = {FindCut(row, search, extremes).value, kAnyId};
  }
  if (slot.top_p < 1.0f) {
    const Search search = {Mass::kWeight, slot.top_p, 0, cut.value};
    const Cut by_weight = FindCut(row, search, extremes);
    if (by_weight.value > cut.value || by_weight.id < cut.id) cut = by_weight;
  }
  if (slot.has_min_p) {
    const float least = extremes.max + slot.log_min_p;
    if (least > cut.value) cut = {least, kAnyId};
  }
  return cut;
}

struct Key {
  uint64_t seed;
  uint64_t position;
  uint32_t choice;
};

// Step 7. A thread takes the four ids of a Philox counter; a word's noise is at most -log of its
// uniform number, which spares the exact noise of nearly all ids.
__device__ int32_t Draw(Row& row, const Key& key, const Cut& cut, const Extremes& extremes) {
  float score = extremes.max + law::Noise(extremes.max_id, key.position, key.choice, key.seed);
  int32_t best = extremes.max_id;
  float bar = score;  // a score that the warp has reached
  const int counters = row.size / 4;
  for (int base = 0; base < counters; base += kThreads) {
    const int counter = base + threadIdx.x;
    const int at = counter / 16 * 64 + counter % 16;
    const bool valid = counter < counters;
    float x[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) x[w] = valid ? row.x[at + 16 * w] : -INFINITY;
    const float largest = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
    const float before = score;
    if (largest >= cut.value && largest + kLargestNoise >= bar) {
      uint32_t words[4];
      law::Philox(row.first / 4 + counter, key.position, key.choice, key.seed, words);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const float v = law::Uniform(words[w]);
        const float margin = fmaf(fabsf(x[w]), 1e-6f, 0.01f);
        const float bound = fmaf(__log2f(v), -0.6931472f, x[w]) + margin;
        if (!(bound >= bar)) continue;  // also without a value
        const int32_t id = row.first + at + 16 * w;
        if (!Keeps(cut, x[w], id)) continue;
        const float candidate = x[w] + law::Gumbel(v);
        if (candidate > score || (candidate == score && id < best)) {
          score = candidate;
          best = id;
        }
      }
    }
    if (__any_sync(kFull, score > before)) {
      bar = law::FromOrdered(__reduce_max_sync(kFull, law::Ordered(score)));
    }
  }
  return PickId(row.All(Pick(score, best), Largest()));
}

// Log-softmax of the raw logits: of the drawn id, and the most probable ids.
__device__ void Logprobs(Row& row, const float* logits, int index, int32_t drawn, int wanted) {
  SampleSlot raw;
  const Extremes extremes = Load(row, logits, raw, 0);
  double sum = 0.0;
  for (int i = threadIdx.x; i < row.size; i += kThreads) sum += expf(row.x[i] - extremes.max);
  sum = row.All(sum, Plus());
  const double normalizer = static_cast<double>(extremes.max) + log(sum);
  if (row.rank == 0 && threadIdx.x == 0) {
    row.p.logprob[index] = static_cast<float>(static_cast<double>(logits[drawn]) - normalizer);
  }
  wanted = min(wanted, min(kSampleMaxLogprobs, row.p.vocabulary));
  if (wanted <= 0) return;
  const Search search = {Mass::kCount, 0.0f, static_cast<uint64_t>(wanted - 1), -INFINITY};
  const Cut cut = FindCut(row, search, extremes);
  Scratch* lead = row.At(&row.s, 0);
  if (row.rank == 0 && threadIdx.x == 0) row.s.border_count = 0;
  row.Sync();
  for (int i = threadIdx.x; i < row.size; i += kThreads) {
    if (!Keeps(cut, row.x[i], row.first + i)) continue;
    const int at = atomicAdd(&lead->border_count, 1);
    lead->border_x[at] = row.x[i];
    lead->border_id[at] = row.first + i;
  }
  row.Sync();
  if (row.rank != 0 || threadIdx.x >= wanted) return;
  const float x = row.s.border_x[threadIdx.x];
  const int32_t id = row.s.border_id[threadIdx.x];
  int place = 0;
  for (int j = 0; j < wanted; ++j) {
    place += ComesBefore(row.s.border_x[j], row.s.border_id[j], x, id);
  }
  row.p.top_ids[index * kSampleMaxLogprobs + place] = id;
  row.p.top_logprobs[index * kSampleMaxLogprobs + place] =
      static_cast<float>(static_cast<double>(x) - normalizer);
}

__device__ void Write(const CudaSampleParams& p, const SampleSlot& slot, int index,
                      int32_t slot_index, int32_t id) {
  if (p.ids != nullptr) p.ids[index] = id;
  if (p.drawn != nullptr) p.drawn[slot_index] = id;
  if (p.advance != nullptr) p.advance[index] += 1;
  if (slot.counts_row >= 0) {
    p.counts[static_cast<int64_t>(slot.counts_row) * p.vocabulary + id] += 1;
  }
}

__global__ __launch_bounds__(kThreads,
                             1) void SampleKernel(const __grid_constant__ CudaSampleParams p,
                                                  int ranks, int slice) {
  extern __shared__ __align__(16) uint8_t shared[];
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int index = static_cast<int>(blockIdx.x) / ranks;
  const int rank = static_cast<int>(blockIdx.x) % ranks;
  const int32_t slot_index = p.row_slots[index];
  if (slot_index < 0) {
    if (rank == 0 && threadIdx.x == 0 && p.ids != nullptr) p.ids[index] = -1;
    return;
  }
  const SampleSlot slot = p.slots[slot_index];
  const int32_t position = __ldcg(p.positions + index) + p.position_offset;
  const float* logits = p.logits + index * p.logits_stride;
  const int32_t first = rank * slice;
  const int rest = max(0, p.vocabulary - first);
  Row row = {p,
             *reinterpret_cast<Scratch*>(shared),
             reinterpret_cast<float*>(shared + sizeof(Scratch)),
             min(slice, (rest + 63) / 64 * 64),
             first,
             rank,
             ranks};
  const int32_t banned = position < slot.banned_before ? slot.banned_count : 0;
  int32_t id;
  if (slot.greedy && slot.counts_row < 0 && slot.bias_count + banned == 0) {
    id = Greedy(row, logits);
  } else {
    const Extremes extremes = Load(row, logits, slot, position);
    id = extremes.max_id;
    if (!slot.greedy && extremes.max > -INFINITY) {
      const Cut cut = Filter(row, slot, extremes);
      id = Draw(row, {slot.seed, static_cast<uint64_t>(position), slot.choice}, cut, extremes);
    }
  }
  if (id >= p.vocabulary || id < 0) id = 0;  // nothing but -infinity and NaN
  if (rank == 0 && threadIdx.x == 0) Write(p, slot, index, slot_index, id);
  if (slot.logprobs >= 0) {
    __syncthreads();
    Logprobs(row, logits, index, id, slot.logprobs);
  }
  row.Sync();  // a block's shared memory stays until its peers have read it
}

__global__ void CountIds(const int32_t* ids, int32_t count, int32_t vocabulary, uint16_t* counts) {
  // One block: it clears and counts in turn.
  for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int32_t id = ids[i];
    if (id < 0 || id >= vocabulary) continue;
    // A half of an aligned word; a count stays below 65536, the longest sequence.
    const auto address = reinterpret_cast<uintptr_t>(counts + id);
    atomicAdd(reinterpret_cast<unsigned*>(address & ~uintptr_t{3}),
              (address & 2) != 0 ? 0x10000u : 1u);
  }
}

}  // namespace

cudaError_t LaunchSample(const CudaSampleParams& params, const SamplePlan& plan,
                         cudaStream_t stream) {
  const cudaError_t error = cudaFuncSetAttribute(
      SampleKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_bytes);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = plan.cluster;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = params.rows * plan.cluster;
  config.blockDim = kThreads;
  config.dynamicSmemBytes = plan.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = plan.cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, SampleKernel, params, plan.cluster, plan.slice);
}

cudaError_t LaunchCountIds(const int32_t* ids, int32_t count, int32_t vocabulary, uint16_t* counts,
                           cudaStream_t stream) {
  CountIds<<<1, 1024, 0, stream>>>(ids, count, vocabulary, counts);
  return cudaGetLastError();
}

}  // namespace hanlin
