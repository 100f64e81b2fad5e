// Cuts segments into tiles of rows and shares (tile, head) pairs out by cost; attention_simd.cc
// does the work.
#include "kernels/attention/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention/cpu/attention_kernels.h"
#include "kernels/base/isa.h"

namespace hanlin {
namespace {

int64_t PaddedDim(int head_dim) { return (head_dim + 15) / 16 * 16; }

// Elements of one head of one block: K, then V.
int64_t HeadElements(int head_dim) { return (head_dim + PaddedDim(head_dim)) * kKvBlockTokens; }

// A few rows of one segment, the unit of work of one head.
struct Tile {
  const AttentionSegment* segment;
  int64_t row;  // within the segment
  int rows;
  int64_t cost_begin;  // of this and the tiles before it, in row-blocks
  int64_t cost;
};

std::vector<Tile> MakeTiles(std::span<const AttentionSegment> segments, int max_rows) {
  std::vector<Tile> tiles;
  int64_t total = 0;
  for (const AttentionSegment& segment : segments) {
    for (int64_t row = 0; row < segment.rows;) {
      int rows = max_rows;
      while (rows > segment.rows - row) rows /= 2;
      const int64_t blocks = (segment.first_position + row + rows - 1) / kKvBlockTokens + 1;
      // K and V of a block are read once per tile, whatever its height: count that as one row.
      const int64_t cost = blocks * (rows + 1);
      tiles.push_back({&segment, row, rows, total, cost});
      total += cost;
      row += rows;
    }
  }
  return tiles;
}

template <typename T>
void WriteRow(const KvWriteParams& params, const AttentionSegment& segment,
              int64_t row_in_segment) {
  const KvCache& cache = params.cache;
  const int64_t row = segment.first_row + row_in_segment;
  const int64_t position = segment.first_position + row_in_segment;
  const int64_t slot = position % kKvBlockTokens;
  T* block =
      reinterpret_cast<T*>(static_cast<char*>(cache.base) +
                           static_cast<size_t>(segment.block_table[position / kKvBlockTokens]) *
                               cache.block_stride_bytes);
  const auto assign = [](T& to, float from) {
    if constexpr (sizeof(T) == 4) {
      to = from;
    } else {
      to = ToBFloat16(from);
    }
  };
  for (int head = 0; head < cache.heads; ++head) {
    const float* k = params.k + row * params.row_stride + head * params.head_stride;
    const float* v = params.v + row * params.row_stride + head * params.head_stride;
    T* keys = block + head * HeadElements(cache.head_dim) + slot;
    T* values = block + head * HeadElements(cache.head_dim) + cache.head_dim * kKvBlockTokens +
                slot * PaddedDim(cache.head_dim);
    for (int d = 0; d < cache.head_dim; ++d) assign(keys[d * kKvBlockTokens], k[d]);
    for (int d = 0; d < cache.head_dim; ++d) assign(values[d], v[d]);
  }
}

}  // namespace

size_t KvBlockBytes(ComputeType type, int heads, int head_dim) {
  return static_cast<size_t>(heads) * HeadElements(head_dim) * SizeOf(type);
}

void WriteKv(const KvWriteParams& params, ThreadPool& pool) {
  int64_t total = 0;
  for (const AttentionSegment& segment : params.segments) total += segment.rows;
  pool.ParallelFor(total, [&](int64_t begin, int64_t end, int) {
    int64_t before = 0;  // rows of the segments so far
    for (const AttentionSegment& segment : params.segments) {
      const int64_t first = std::max<int64_t>(begin - before, 0);
      const int64_t last = std::min(end - before, segment.rows);
      for (int64_t row = first; row < last; ++row) {
        if (params.cache.type == ComputeType::kFloat32) {
          WriteRow<float>(params, segment, row);
        } else {
          WriteRow<BFloat16>(params, segment, row);
        }
      }
      before += segment.rows;
    }
  });
}

void Attention(const AttentionParams& params, ThreadPool& pool) {
  const AttentionKernels& kernels = HANLIN_ACTIVE_KERNELS(kAttentionKernels);
  const KvCache& cache = params.cache;
  const auto run = cache.type == ComputeType::kFloat32 ? kernels.float32 : kernels.bfloat16;
  const std::vector<Tile> tiles = MakeTiles(params.segments, kernels.tile_rows);
  if (tiles.empty()) return;
  const int64_t total_cost = (tiles.back().cost_begin + tiles.back().cost) * cache.heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(cache.head_dim));

  const auto run_item = [&](const Tile& tile, int head) {
    const AttentionSegment& segment = *tile.segment;
    const int64_t row = segment.first_row + tile.row;
    const int64_t out_offset = row * params.out_stride + head * cache.head_dim;
    run({.q = params.q + row * params.row_stride + head * params.head_stride,
         .q_stride = params.row_stride,
         .rows = tile.rows,
         .first_position = segment.first_position + tile.row,
         .block_table = segment.block_table,
         .head_base = static_cast<const char*>(cache.base) +
                      head * HeadElements(cache.head_dim) * SizeOf(cache.type),
         .block_stride_bytes = cache.block_stride_bytes,
         .head_dim = cache.head_dim,
         .scale = scale,
         .out = static_cast<char*>(params.out) + out_offset * SizeOf(params.out_type),
         .out_stride = params.out_stride,
         .out_type = params.out_type});
  };
  // A (tile, head) belongs to the thread in whose equal share of the total cost it begins.
  const int threads = pool.num_threads();
  pool.RunOnAll([&](int thread) {
    for (const Tile& tile : tiles) {
      for (int head = 0; head < cache.heads; ++head) {
        const int64_t begin = tile.cost_begin * cache.heads + head * tile.cost;
        if (begin * threads / total_cost == thread) run_item(tile, head);
      }
    }
  });
}

}  // namespace hanlin
