// Blocking of matmul.h. For every block of k, what needs it of a is packed, then kColumnBlock
// columns of b at a time; all threads share both and take (row block, panel) pairs. The blocks
// change no bit, because accumulators wait in c as the fp32 numbers they are.
#include "kernels/gemm/cpu/matmul.h"

#include <algorithm>
#include <vector>

#include "kernels/base/isa.h"
#include "kernels/gemm/cpu/matmul_kernels.h"

namespace hanlin {
namespace {

constexpr int64_t kColumnBlock = 1024;  // 1.25 MiB of packed b
constexpr int64_t kRowBlock = 96;       // 120 KiB of a beside a panel of 80 KiB: the L2 cache

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Room for `count` elements of 32 bits, on a cache line, so that no vector crosses one.
template <typename T>
T* Reserve(std::vector<float>& buffer, int64_t count) {
  constexpr uintptr_t kLine = 64;
  const size_t size = count + kLine / sizeof(float);
  if (buffer.size() < size) buffer = std::vector<float>(size);
  const auto address = reinterpret_cast<uintptr_t>(buffer.data());
  return reinterpret_cast<T*>((address + kLine - 1) / kLine * kLine);
}

template <typename T>
class Product {
 public:
  explicit Product(const MatMulParams& p)
      : p_(p),
        row_blocks_(CeilDiv(p.m, kRowBlock)),
        tiles_(CeilDiv(p.m, kernels_.tile_rows)),
        pack_a_(p.a_transposed || kBf16),
        a_by_steps_(p.a_transposed && kernels_.pack_rows == nullptr) {
    // Blocks of equal depth; the middle of a pair is no place to cut.
    depth_ = CeilDiv(CeilDiv(p.k, kK), std::max<int64_t>(1, CeilDiv(p.k, kMatMulDepth * kK)));
    depth_ = Steps(std::max<int64_t>(1, depth_)) * kK;
    // A row of packed a ends with a whole vector, and so does a packed block of rows.
    a_width_ = CeilDiv(depth_, 2 * kLanes) * 2 * kLanes / kK;
  }

  // `loop(count, body)` runs body(begin, end, thread) over [0, count).
  template <typename Loop>
  void Run(Loop loop) {
    thread_local std::vector<float> room_a, room_b;
    if (pack_a_) a_ = Reserve<T>(room_a, (p_.m + row_blocks_ * kLanes) * a_width_);
    b_ = Reserve<T>(room_b, kColumnBlock * kMatMulDepth);
    // k = 0 still writes c: the bias, or zeros.
    for (k_ = 0; k_ == 0 || k_ < p_.k; k_ += depth_) {
      for (n_ = 0; n_ < p_.n; n_ += kColumnBlock) {
        const int64_t panels = CeilDiv(std::min(kColumnBlock, p_.n - n_), width());
        const int64_t blocks_of_a = pack_a_ && n_ == 0 ? row_blocks_ : 0;
        loop(blocks_of_a + panels, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            if (i < blocks_of_a) {
              PackA(i);
            } else {
              PackB(i - blocks_of_a);
            }
          }
        });
        loop(row_blocks_ * panels, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) Multiply(i / panels, i % panels);
        });
      }
    }
  }

 private:
  static constexpr bool kBf16 = std::is_same_v<T, BFloat16>;
  static constexpr int64_t kK = kBf16 ? 2 : 1;  // elements of a step
  static constexpr int64_t kLanes = 16;

  static const MatMulKernelsOf<T>& Kernels() {
    if constexpr (kBf16) {
#if defined(__x86_64__)
      if (ActiveIsa() == Isa::kAmx) return simd_amx::kMatMulKernels;
#endif
      return HANLIN_ACTIVE_KERNELS(kMatMulKernels).bfloat16;
    } else {
      return HANLIN_ACTIVE_KERNELS(kMatMulKernels).float32;
    }
  }

  int64_t width() const { return kernels_.width; }
  int64_t depth() const { return std::min(depth_, p_.k - k_); }
  // `steps` rounded up to what the kernels take.
  int64_t Steps(int64_t steps) const {
    return CeilDiv(steps, kernels_.step_multiple) * kernels_.step_multiple;
  }
  int64_t steps() const { return Steps(CeilDiv(depth(), kK)); }

  // Rows [RowBegin(block), RowBegin(block + 1)): whole tiles, as equal as can be.
  int64_t RowBegin(int64_t block) const {
    return std::min(p_.m, tiles_ * block / row_blocks_ * kernels_.tile_rows);
  }
  // Packed a: [rows][a_width_] steps, or [steps][rows, rounded up].
  T* PackedA(int64_t block) const {
    return a_ + (RowBegin(block) + block * kLanes) * a_width_ * kK;
  }
  int64_t PackedRows(int64_t block) const {
    return CeilDiv(RowBegin(block + 1) - RowBegin(block), kLanes) * kLanes;
  }
  T* Panel(int64_t panel) const { return b_ + panel * width() * kMatMulDepth * kK; }

  void PackA(int64_t block) const {
    const int64_t begin = RowBegin(block), end = RowBegin(block + 1);
    if (p_.a_transposed) {
      const float* const from = p_.a + k_ * p_.a_stride + begin;
      if (a_by_steps_) {
        kernels_.pack_k(
            {depth(), steps(), end - begin, from, p_.a_stride, PackedRows(block), PackedA(block)});
      } else {
        kernels_.pack_rows(
            {depth(), steps(), end - begin, from, p_.a_stride, a_width_, PackedA(block)});
      }
      return;
    }
    if constexpr (kBf16) {
      for (int64_t row = begin; row < end; ++row) {
        kernels_.round(p_.a + row * p_.a_stride + k_, depth(),
                       PackedA(block) + (row - begin) * a_width_ * kK);
      }
    }
  }

  void PackB(int64_t panel) const {
    const int64_t column = n_ + panel * width();
    const int64_t columns = std::min(width(), p_.n - column);
    const float* const from =
        p_.b + (p_.b_transposed ? column * p_.b_stride + k_ : k_ * p_.b_stride + column);
    const auto pack = p_.b_transposed ? kernels_.pack_lines : kernels_.pack_k;
    pack({depth(), steps(), columns, from, p_.b_stride, width(), Panel(panel)});
  }

  void Multiply(int64_t block, int64_t panel) const {
    const int64_t row = RowBegin(block);
    const int64_t column = n_ + panel * width();
    const bool last = k_ + depth_ >= p_.k;
    MatMulBlock<T> b = {.rows = RowBegin(block + 1) - row};
    b.columns = std::min(width(), p_.n - column);
    b.steps = steps();
    if (pack_a_) {
      b.a = PackedA(block);
      b.a_row = a_by_steps_ ? kK : a_width_ * kK;
      b.a_step = a_by_steps_ ? PackedRows(block) * kK : kK;
    } else if constexpr (!kBf16) {
      b.a = p_.a + row * p_.a_stride + k_;
      b.a_row = p_.a_stride;
      b.a_step = 1;
    }
    b.b = Panel(panel);
    b.bias = last && p_.bias != nullptr ? p_.bias + column : nullptr;
    b.accumulate = p_.accumulate || k_ > 0;
    b.c = p_.c + row * p_.c_stride + column;
    b.c_stride = p_.c_stride;
    kernels_.block(b);
  }

  const MatMulParams& p_;
  const MatMulKernelsOf<T>& kernels_ = Kernels();
  const int64_t row_blocks_, tiles_;
  const bool pack_a_;
  const bool a_by_steps_;  // packed a is [steps][rows], not [rows][steps]
  int64_t depth_, a_width_;
  T* a_ = nullptr;
  T* b_ = nullptr;
  int64_t k_ = 0, n_ = 0;  // of the block at hand
};

template <typename Loop>
void Run(const MatMulParams& p, Loop loop) {
  if (p.type == ComputeType::kBFloat16) {
    Product<BFloat16>(p).Run(loop);
  } else {
    Product<float>(p).Run(loop);
  }
}

}  // namespace

void MatMul(const MatMulParams& params, ThreadPool& pool) {
  Run(params, [&pool](int64_t count, auto&& body) { pool.ParallelFor(count, body); });
}

void MatMulOnThisThread(const MatMulParams& params) {
  Run(params, [](int64_t count, auto&& body) { body(int64_t{0}, count, 0); });
}

}  // namespace hanlin
