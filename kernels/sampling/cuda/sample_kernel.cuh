// The sampling kernel. A cluster of blocks holds one row; block `rank` the ids [rank * slice, ...).
// Steps 1 to 3 of the law on the way into the block's memory, the filters as a cut (cut.cuh), then
// the draw among what is kept. Included by one source for each place where logits are kept.
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_KERNEL_CUH_
#define HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_KERNEL_CUH_

#include "kernels/base/cuda/ptx.cuh"
#include "kernels/sampling/cuda/cut.cuh"
#include "kernels/sampling/cuda/draw.cuh"
#include "kernels/sampling/cuda/draw_list.cuh"
#include "kernels/sampling/cuda/law.cuh"
#include "kernels/sampling/cuda/row.cuh"
#include "kernels/sampling/cuda/sample_params.h"

namespace hanlin {
namespace sampling {
namespace {

// Running maximum with its first id; minimum, sum and number of what is not -infinity.
struct Tracker {
  float max = -INFINITY;
  int32_t id = kAnyId;
  float min = INFINITY;
  float sum = 0.0f;
  int count = 0;

  __device__ __forceinline__ void Take(float x, int32_t of) {
    if (x > max) {
      max = x;
      id = of;
    }
    if (x > -INFINITY) {
      min = fminf(min, x);
      sum += x;
      ++count;
    }
  }
};

// Raw logits of the slice, four at a time: use(index in the slice, logits), -infinity beyond the
// vocabulary. Vector loads where alignment allows. In their shadow: meanwhile(index / 4).
template <typename Row, typename Use, typename Meanwhile>
__device__ __forceinline__ void ForEachFour(const Row& row, const float* slice, Use use,
                                            Meanwhile meanwhile) {
  constexpr int kUnroll = 2;
  const int valid = row.Valid();
  const int vectors = reinterpret_cast<uintptr_t>(slice) % 16 == 0 ? valid / 4 : 0;
#pragma unroll 1
  for (int v = threadIdx.x; v < vectors; v += kUnroll * kThreads) {
    float4 x[kUnroll];
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      if (v + j * kThreads < vectors) {
        x[j] = __ldcg(reinterpret_cast<const float4*>(slice) + v + j * kThreads);
      }
    }
#pragma unroll 1
    for (int j = 0; j < kUnroll && v + j * kThreads < vectors; ++j) meanwhile(v + j * kThreads);
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      if (v + j * kThreads < vectors) use(4 * (v + j * kThreads), x[j]);
    }
  }
#pragma unroll 1
  for (int v = vectors + threadIdx.x; v < row.size / 4; v += kThreads) {
    float x[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = 4 * v + j < valid ? __ldcg(slice + 4 * v + j) : -INFINITY;
    meanwhile(v);
    use(4 * v, make_float4(x[0], x[1], x[2], x[3]));
  }
}

// Step 1 on the raw logits that the block keeps.
template <typename Row>
__device__ __forceinline__ void ApplyBias(const CudaSampleParams& p, const SampleSlot& slot,
                                          int32_t banned, const Row& row) {
  float* logits = row.Logits();
#pragma unroll 1
  for (int i = threadIdx.x; i < slot.bias_count; i += kThreads) {
    const SampleBias bias = p.bias[slot.bias_begin + i];
    const int64_t at = static_cast<int64_t>(bias.id) - row.first;
    if (at >= 0 && at < row.size) logits[at] += bias.bias;
  }
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < banned; i += kThreads) {
    const int64_t at = static_cast<int64_t>(p.banned[slot.banned_begin + i]) - row.first;
    if (at >= 0 && at < row.size) logits[at] = -INFINITY;
  }
  __syncthreads();
}

__device__ __forceinline__ void Penalize(const SampleSlot& slot, uint32_t count, float& x) {
  if (count == 0) return;
  x = x > 0.0f ? x / slot.repetition_penalty : x * slot.repetition_penalty;
  x -= slot.frequency_penalty * static_cast<float>(count) + slot.presence_penalty;
}

// Step 2; `counts` are those of the slice.
template <typename Row>
__device__ __forceinline__ void ApplyPenalties(const Row& row, const SampleSlot& slot,
                                               const uint16_t* counts) {
  const int valid = row.Valid();
  float* logits = row.Logits();
  const int vectors = reinterpret_cast<uintptr_t>(counts) % 16 == 0 ? valid / 8 : 0;
#pragma unroll 4
  for (int v = threadIdx.x; v < vectors; v += kThreads) {
    const uint4 eight = __ldcg(reinterpret_cast<const uint4*>(counts) + v);
    if ((eight.x | eight.y | eight.z | eight.w) == 0) continue;
    const uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      Penalize(slot, pairs[j] & 0xffff, logits[8 * v + 2 * j]);
      Penalize(slot, pairs[j] >> 16, logits[8 * v + 2 * j + 1]);
    }
  }
#pragma unroll 1
  for (int i = 8 * vectors + threadIdx.x; i < valid; i += kThreads) {
    Penalize(slot, __ldcg(counts + i), logits[i]);
  }
  __syncthreads();
}

// Steps 1 to 3, or nothing but the load with kRaw; the logits are kept with kKeep.
template <bool kKeep, bool kRaw = false, typename Row, typename Meanwhile>
__device__ __forceinline__ Extremes Load(const CudaSampleParams& p, Row& row, const float* logits,
                                         const SampleSlot& slot, int32_t position,
                                         Meanwhile meanwhile) {
  const int32_t banned = position < slot.banned_before ? slot.banned_count : 0;
  const float scale = kRaw ? 1.0f : slot.scale;
  Tracker tracker;
  const auto take = [&](int i, float4 raw) {
    float x[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      x[j] = x[j] > -INFINITY ? x[j] * scale : -INFINITY;  // NaN goes
      tracker.Take(x[j], row.first + i + j);
    }
    if (kKeep) row.KeepFour(i, make_float4(x[0], x[1], x[2], x[3]));
  };
  const float* slice = logits + row.first;
  if (kRaw || (slot.counts_row < 0 && slot.bias_count + banned == 0)) {
    ForEachFour(row, slice, take, meanwhile);
  } else {
    const auto keep = [&](int i, float4 raw) { row.KeepFour(i, raw); };
    ForEachFour(row, slice, keep, meanwhile);
    __syncthreads();
    if (slot.bias_count + banned > 0) ApplyBias(p, slot, banned, row);
    if (slot.counts_row >= 0) {
      const int64_t begin = static_cast<int64_t>(slot.counts_row) * p.vocabulary + row.first;
      ApplyPenalties(row, slot, p.counts + begin);
    }
#pragma unroll 1
    for (int i = 4 * threadIdx.x; i < row.size; i += 4 * kThreads) take(i, row.FourLogits(i));
  }
  uint64_t pick = Pick(tracker.max, tracker.id);
  uint32_t low = ~law::Ordered(tracker.min);  // reversed: a maximum, too
  row.Largest(pick, low);
  return {PickValue(pick), PickId(pick), law::FromOrdered(~low),
          tracker.max,     tracker.sum,  tracker.count};
}

// Steps 4 to 6: what may be drawn.
template <typename Row>
__device__ __noinline__ Cut Filter(Row row, const SampleSlot& slot, Extremes extremes) {
  Cut cut = {-INFINITY, kAnyId};
  if (slot.top_k > 0 && slot.top_k < row.vocabulary) {
    cut.value = FindCut<Mass::kCount>(row, 0.0f, slot.top_k - 1, -INFINITY, extremes).value;
  }
  if (slot.top_p < 1.0f) {
    const Cut by_weight = FindCut<Mass::kWeight>(row, slot.top_p, 0, cut.value, extremes);
    if (by_weight.value > cut.value || by_weight.id < cut.id) cut = by_weight;
  }
  if (slot.has_min_p) {
    const float least = extremes.max + slot.log_min_p;
    if (least > cut.value) cut = {least, kAnyId};
  }
  return cut;
}

// Log-softmax of the raw logits: of the drawn id, and the most probable ids.
template <typename Row>
__device__ __noinline__ void Logprobs(const CudaSampleParams& p, Row row, const float* logits,
                                      const SampleSlot& slot, int index, int32_t drawn) {
  const Extremes extremes = Load<true, true>(p, row, logits, slot, 0, [](int) {});
  double sum = 0.0;
#pragma unroll 1
  for (int i = 4 * threadIdx.x; i < row.size; i += 4 * kThreads) {
    const float4 x = row.FourLogits(i);
    sum += (Exp2((x.x - extremes.max) * kLog2E) + Exp2((x.y - extremes.max) * kLog2E)) +
           (Exp2((x.z - extremes.max) * kLog2E) + Exp2((x.w - extremes.max) * kLog2E));
  }
  const double normalizer = static_cast<double>(extremes.max) + log(row.Sum(sum));
  if (row.rank == 0 && threadIdx.x == 0) {
    p.logprob[index] = static_cast<float>(static_cast<double>(logits[drawn]) - normalizer);
  }
  const int wanted = min(slot.logprobs, min(kSampleMaxLogprobs, row.vocabulary));
  if (wanted <= 0) return;
  const Cut cut = FindCut<Mass::kCount>(row, 0.0f, wanted - 1, -INFINITY, extremes);
  Scratch& s = Own();
  Scratch* lead = row.At(&s, 0);
  if (threadIdx.x == 0) s.border_count = 0;
  row.Sync();
#pragma unroll 1
  for (int i = 4 * threadIdx.x; i < row.size; i += 4 * kThreads) {
    const float4 four = row.FourLogits(i);
    const float x[4] = {four.x, four.y, four.z, four.w};
    if (fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3])) < cut.value) continue;
    for (int j = 0; j < 4; ++j) {
      if (!Keeps(cut, x[j], row.first + i + j)) continue;
      const int at = atomicAdd(&lead->border_count, 1);
      lead->border_x[at] = x[j];
      lead->border_id[at] = row.first + i + j;
    }
  }
  row.Sync();
  if (row.rank != 0 || threadIdx.x >= wanted) return;
  const float x = s.border_x[threadIdx.x];
  const int32_t id = s.border_id[threadIdx.x];
  int place = 0;
#pragma unroll 1
  for (int j = 0; j < wanted; ++j) place += ComesBefore(s.border_x[j], s.border_id[j], x, id);
  p.top_ids[index * kSampleMaxLogprobs + place] = id;
  p.top_logprobs[index * kSampleMaxLogprobs + place] =
      static_cast<float>(static_cast<double>(x) - normalizer);
}

// The whole law for a row.
template <typename Row>
__device__ __forceinline__ int32_t Sample(const CudaSampleParams& p, Row& row, const float* logits,
                                          const SampleSlot& slot, int32_t position) {
  if (slot.greedy) {
    const int32_t id = Load<false>(p, row, logits, slot, position, [](int) {}).max_id;
    return id < row.vocabulary ? id : 0;  // 0: nothing but -infinity and NaN
  }
  const Key key = {slot.seed, static_cast<uint64_t>(position), slot.choice};
  const bool cut_by_count = slot.top_k > 0 && slot.top_k < row.vocabulary;
  const bool hinted = Row::kShared && !cut_by_count;  // the few that top-k keeps need no hints
  const auto hint = [&](int counter) {
    if (!hinted) return;
    uint32_t words[4];
    WordsOf(row, key, counter, words);
    row.Hints()[counter] = HintOf(words);
  };
  const Extremes extremes = Load<true>(p, row, logits, slot, position, hint);
  if (!(extremes.max > -INFINITY)) return 0;
  const bool cuts = cut_by_count || slot.has_min_p;  // else top-p may do without
  const float top_p = cuts ? 1.0f : slot.top_p;
  Cut cut = {-INFINITY, kAnyId};
  if (cuts) cut = Filter(row, slot, extremes);
  const int32_t id = DrawFromList(row, key, cut, top_p, hinted, extremes);
  if (id != kAnyId) return id;
  if (top_p < 1.0f) cut = Filter(row, slot, extremes);
  return Draw(row, key, cut, hinted, extremes);
}

__device__ __forceinline__ void Write(const CudaSampleParams& p, const SampleSlot& slot, int index,
                                      int32_t slot_index, int32_t id) {
  if (p.ids != nullptr) p.ids[index] = id;
  if (p.drawn != nullptr) p.drawn[slot_index] = id;
  if (p.advance != nullptr) p.advance[index] += 1;
  if (slot.counts_row >= 0) {
    p.counts[static_cast<int64_t>(slot.counts_row) * p.vocabulary + id] += 1;
  }
}

template <bool kInShared>
__global__ __launch_bounds__(kThreads,
                             1) void SampleKernel(const __grid_constant__ CudaSampleParams p,
                                                  int cluster, int slice) {
  const int ranks = kInShared ? cluster : 1;
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int index = static_cast<int>(blockIdx.x) / ranks;
  const int rank = static_cast<int>(blockIdx.x) % ranks;
  const int32_t slot_index = p.row_slots[index];
  if (slot_index < 0) {
    if (rank == 0 && threadIdx.x == 0 && p.ids != nullptr) p.ids[index] = -1;
    return;
  }
  const SampleSlot& slot = p.slots[slot_index];
  const int32_t position = __ldcg(p.positions + index) + p.position_offset;
  const float* logits = p.logits + index * p.logits_stride;
  const int32_t first = rank * slice;
  const int32_t rest = max(0, p.vocabulary - first);
  const int32_t size = min(slice, (rest + 63) / 64 * 64);
  float* const global = kInShared ? nullptr : p.workspace + static_cast<int64_t>(index) * slice;
  Row<kInShared> row = {global, p.vocabulary, first, size, rank, ranks};
  const int32_t id = Sample(p, row, logits, slot, position);
  if (rank == 0 && threadIdx.x == 0) Write(p, slot, index, slot_index, id);
  if (slot.logprobs >= 0) {
    row.Sync();  // its reductions start with any turn of their buffers
    Logprobs(p, row, logits, slot, index, id);
  }
  row.Sync();  // a block's shared memory stays until its peers have read it
}

}  // namespace
}  // namespace sampling
}  // namespace hanlin

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_KERNEL_CUH_
