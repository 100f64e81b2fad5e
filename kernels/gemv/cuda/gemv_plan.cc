// The heuristics: one block per multiprocessor with 16 warps, and rings of two slots that are as
// long as shared memory allows. Measured on an H100 (docs/gpu_notes.md): more bytes in flight
// before the dependency wait beat more blocks.
#include <algorithm>

#include "kernels/gemv/cuda/gemv.h"

namespace hanlin {
namespace {

constexpr int kWarps = 16;
constexpr int kSlots = 2;
constexpr int64_t kMaxChunk = 2560;
constexpr int64_t kMinChunk = 256;
constexpr size_t kReserved = 2048;  // static shared memory of the kernel, and what the system takes

int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

}  // namespace

absl::StatusOr<GemvPlan> PlanGemv(int64_t n, int64_t k, int batch, int multiprocessors,
                                  size_t shared_memory_per_block) {
  if (n < 1 || n > (int64_t{1} << 30)) return InvalidArgument("n is {}, want 1 to 2^30", n);
  if (k < 8 || k % 8 != 0 || k > (int64_t{1} << 20)) {
    return InvalidArgument("k is {}, want a multiple of 8 up to 2^20", k);
  }
  if (batch < 1 || batch > kGemvMaxBatch) {
    return InvalidArgument("batch is {}, want 1 to {}", batch, kGemvMaxBatch);
  }
  if (multiprocessors < 1 || shared_memory_per_block <= kReserved) {
    return InvalidArgument("a device of {} multiprocessors and {} bytes of shared memory",
                           multiprocessors, shared_memory_per_block);
  }
  const int64_t blocks = std::min<int64_t>(n, multiprocessors);
  const int64_t rows = (n + blocks - 1) / blocks;
  const auto room = static_cast<int64_t>(shared_memory_per_block - kReserved);
  // Equal pieces of a row, at most kMaxChunk long; shorter ones until everything fits.
  for (int64_t pieces = (k + kMaxChunk - 1) / kMaxChunk;; ++pieces) {
    const int64_t chunk = RoundUp((k + pieces - 1) / pieces, 8);
    const int64_t bytes = RoundUp(batch * k * 2, 128) + kWarps * kSlots * RoundUp(chunk * 2, 128) +
                          rows * pieces * batch * 4;
    if (bytes <= room) {
      return GemvPlan{.blocks = static_cast<int>(blocks),
                      .warps = kWarps,
                      .slots = kSlots,
                      .chunk = static_cast<int>(chunk),
                      .shared_bytes = static_cast<size_t>(bytes)};
    }
    if (chunk <= kMinChunk) break;
  }
  return InvalidArgument("n {}, k {}, batch {}: needs more than the {} bytes of shared memory", n,
                         k, batch, shared_memory_per_block);
}

}  // namespace hanlin
