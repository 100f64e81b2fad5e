// Blocking of matmul.h. For every block of k, what needs it of a is packed, then kColumnBlock
// columns of b at a time; all threads share both and take (row block, panel) pairs. The blocks
// change no bit, because accumulators wait in c as the fp32 numbers they are.
#include "kernels/gemm/cpu/matmul.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels/base/isa.h"
#include "kernels/gemm/cpu/matmul_kernels.h"

namespace hanlin {

class PackedBAccess {
 public:
  static const std::vector<float>& Storage(const PackedB& b) { return b.storage_; }
  static std::vector<float>& Storage(PackedB& b) { return b.storage_; }
};

namespace {

constexpr int64_t kColumnBlock = 1024;  // 1.25 MiB of packed b
constexpr int64_t kRowBlock = 96;       // 120 KiB of a beside a panel of 80 KiB: the L2 cache

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr uintptr_t kLine = 64;  // bytes of the cache; no vector shall cross one

template <typename T>
T* Align(const std::vector<float>& buffer) {
  const auto address = reinterpret_cast<uintptr_t>(buffer.data());
  const float* const aligned = buffer.data() + (-address % kLine) / sizeof(float);
  return reinterpret_cast<T*>(const_cast<float*>(aligned));
}

// Room for `count` elements of 32 bits.
template <typename T>
T* Reserve(std::vector<float>& buffer, int64_t count) {
  const size_t size = count + kLine / sizeof(float);
  if (buffer.size() < size) buffer = std::vector<float>(size);
  return Align<T>(buffer);
}

template <typename T>
class Product {
 public:
  explicit Product(const MatMulParams& p)
      : p_(p), row_blocks_(CeilDiv(p.m, kRowBlock)), tiles_(CeilDiv(p.m, kernels_.tile_rows)) {
    // Blocks of equal depth; the middle of a pair is no place to cut. Sums can wait in c only if
    // that is what they become.
    const bool plain = p.c.type == ComputeType::kFloat32 && p.epilogue == MatMulEpilogue::kNone;
    const int64_t blocks = plain ? std::max<int64_t>(1, CeilDiv(p.k, kernels_.most_steps * kK)) : 1;
    depth_ = Steps(std::max<int64_t>(1, CeilDiv(CeilDiv(p.k, kK), blocks))) * kK;
    // A row of packed a ends with a whole vector, and so does a packed block of rows.
    a_width_ = CeilDiv(depth_, 2 * kLanes) * 2 * kLanes / kK;
  }

  // `loop(count, body)` runs body(begin, end, thread) over [0, count).
  template <typename Loop>
  void Run(Loop loop) {
    thread_local std::vector<float> room_a, room_b;
    if (!AllDirect()) a_ = Reserve<T>(room_a, (p_.m + row_blocks_ * kLanes) * a_width_);
    whole_b_ = p_.packed_b != nullptr;
    b_ = whole_b_ ? Align<T>(PackedBAccess::Storage(*p_.packed_b))
                  : Reserve<T>(room_b, kColumnBlock * depth_ / kK);
    // k = 0 still writes c: the bias, or zeros.
    for (k_ = 0; k_ == 0 || k_ < p_.k; k_ += depth_) {
      for (n_ = 0; n_ < p_.n; n_ += kColumnBlock) {
        const int64_t panels = CeilDiv(std::min(kColumnBlock, p_.n - n_), width());
        Pack(n_ == 0 && !AllDirect(), whole_b_ ? 0 : panels, loop);
        loop(row_blocks_ * panels, [&](int64_t begin, int64_t end, int) {
          if (kernels_.enter != nullptr) kernels_.enter();
          for (int64_t i = begin; i < end; ++i) Multiply(i / panels, i % panels);
          if (kernels_.leave != nullptr) kernels_.leave();
        });
      }
    }
  }

  // The whole of b to `storage`.
  template <typename Loop>
  void PackWholeB(std::vector<float>& storage, Loop loop) {
    const int64_t blocks = std::max<int64_t>(1, CeilDiv(p_.k, depth_));
    whole_b_ = true;
    b_ = Reserve<T>(storage, blocks * packed_panels() * width() * depth_ / kK);
    for (k_ = 0; k_ < p_.k; k_ += depth_) {
      Pack(false, packed_panels(), loop);
    }
  }

 private:
  static constexpr bool kBf16 = std::is_same_v<T, BFloat16>;
  static constexpr ComputeType kType = kBf16 ? ComputeType::kBFloat16 : ComputeType::kFloat32;
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
  // Packed a: [rows][a_width_] steps, whole vectors of rows.
  T* PackedA(int64_t block) const {
    return a_ + (RowBegin(block) + block * kLanes) * a_width_ * kK;
  }
  int64_t PackedRows(int64_t block) const {
    return CeilDiv(RowBegin(block + 1) - RowBegin(block), kLanes) * kLanes;
  }
  int64_t packed_panels() const { return CeilDiv(p_.n, width()); }
  // Panel `panel` of the block at hand.
  T* Panel(int64_t panel) const {
    if (whole_b_) panel += k_ / depth_ * packed_panels() + n_ / width();
    return b_ + panel * width() * depth_;
  }

  bool AllDirect() const {
    return !p_.a_transposed && p_.a.type == kType && p_.k % (kernels_.step_multiple * kK) == 0 &&
           (kernels_.step_multiple == 1 || p_.m % kLanes == 0);
  }
  // Whether a block of rows is multiplied from where it lies: the kernels may read whole steps
  // and whole vectors of rows.
  bool Direct(int64_t block) const {
    if (p_.a_transposed || p_.a.type != kType) return false;
    if (kernels_.step_multiple == 1) return depth() % kK == 0;
    return depth() == steps() * kK && RowBegin(block) + PackedRows(block) <= p_.m;
  }

  // What lies in rows of k is packed kPackSteps steps at a time, all columns of them: memory is
  // read row by row. What lies in columns of k is packed by blocks of rows of a, or panels of b.
  template <typename Loop>
  void Pack(bool a, int64_t panels, Loop loop) {
    const int64_t groups = CeilDiv(steps(), kPackSteps);
    const int64_t parts_of_a = a ? (p_.a_transposed ? groups : row_blocks_) : 0;
    const int64_t parts_of_b = panels > 0 && !p_.b_transposed ? groups : panels;
    // An item takes as much of a and of b as the others.
    const int64_t items = std::max(parts_of_a, parts_of_b);
    const bool sums = a && p_.a_sums != nullptr;
    if (sums) sums_.assign(groups * SumsStride(), 0.0f);
    loop(items, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = parts_of_a * begin / items; i < parts_of_a * end / items; ++i) PackA(i);
      for (int64_t i = parts_of_b * begin / items; i < parts_of_b * end / items; ++i) {
        PackB(i, panels);
      }
    });
    if (sums) AddSums(groups);
  }

  // Sums of op(a)'s rows over a group of steps, in the rows of packed a.
  int64_t SumsStride() const { return p_.m + row_blocks_ * kLanes; }
  float* Sums(int64_t group, int64_t block) {
    return sums_.data() + group * SumsStride() + RowBegin(block) + block * kLanes;
  }
  void AddSums(int64_t groups) {
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t block = 0; block < row_blocks_; ++block) {
        const float* const sums = Sums(group, block);
        const int64_t row = RowBegin(block), rows = RowBegin(block + 1) - row;
        for (int64_t i = 0; i < rows; ++i) p_.a_sums[row + i] += sums[i];
      }
    }
  }

  struct Group {
    int64_t begin, steps, k;  // steps [begin, begin + steps), which k elements take
  };
  Group GroupAt(int64_t index) const {
    const int64_t begin = index * kPackSteps;
    return {begin, std::min(kPackSteps, steps() - begin),
            std::min(kPackSteps * kK, depth() - begin * kK)};
  }

  void PackA(int64_t part) {
    if (!p_.a_transposed) {
      if (!Direct(part)) PackRowsOfA(part);
      return;
    }
    const Group group = GroupAt(part);
    for (int64_t block = 0; block < row_blocks_; ++block) {
      const int64_t row = RowBegin(block);
      const ConstArray from = p_.a.From((k_ + group.begin * kK) * p_.a_stride + row);
      kernels_.pack_rows({group.k, group.steps, RowBegin(block + 1) - row, from.data, from.type,
                          p_.a_stride, a_width_, PackedA(block) + group.begin * kK,
                          p_.a_sums == nullptr ? nullptr : Sums(part, block)});
    }
  }

  void PackRowsOfA(int64_t block) const {
    const int64_t begin = RowBegin(block);
    for (int64_t row = begin; row < RowBegin(block + 1); ++row) {
      T* const to = PackedA(block) + (row - begin) * a_width_ * kK;
      const void* const from = p_.a.From(row * p_.a_stride + k_).data;
      if (p_.a.type == kType) {
        std::memcpy(to, from, depth() * sizeof(T));
        std::memset(to + depth(), 0, (a_width_ * kK - depth()) * sizeof(T));
      } else if constexpr (kBf16) {
        kernels_.round(static_cast<const float*>(from), depth(), to);
      }
    }
  }

  void PackB(int64_t part, int64_t panels) const {
    const auto columns = [&](int64_t column) { return std::min(width(), p_.n - column); };
    if (p_.b_transposed) {
      const int64_t column = n_ + part * width();
      const ConstArray from = p_.b.From(column * p_.b_stride + k_);
      kernels_.pack_lines({depth(), steps(), columns(column), from.data, from.type, p_.b_stride,
                           width(), Panel(part)});
      return;
    }
    const Group group = GroupAt(part);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t column = n_ + panel * width();
      const ConstArray from = p_.b.From((k_ + group.begin * kK) * p_.b_stride + column);
      kernels_.pack_k({group.k, group.steps, columns(column), from.data, from.type, p_.b_stride,
                       width(), Panel(panel) + group.begin * width() * kK});
    }
  }

  void Multiply(int64_t block, int64_t panel) const {
    const int64_t row = RowBegin(block);
    const int64_t column = n_ + panel * width();
    MatMulBlock<T> b = {.rows = RowBegin(block + 1) - row};
    b.columns = std::min(width(), p_.n - column);
    b.steps = steps();
    if (Direct(block)) {
      b.a = static_cast<const T*>(p_.a.From(row * p_.a_stride + k_).data);
      b.a_row = p_.a_stride;
    } else {
      b.a = PackedA(block);
      b.a_row = a_width_ * kK;
    }
    b.b = Panel(panel);
    b.bias = k_ == 0 && p_.bias != nullptr ? p_.bias + column : nullptr;
    b.accumulate = p_.accumulate || k_ > 0;
    const int64_t at = row * p_.c_stride + column;
    b.c = p_.c.From(at).data;
    b.c_type = p_.c.type;
    b.c_stride = p_.c_stride;
    b.epilogue = p_.epilogue;
    if (p_.epilogue != MatMulEpilogue::kNone) b.other = p_.other.From(at).data;
    kernels_.block(b);
  }

  const MatMulParams& p_;
  const MatMulKernelsOf<T>& kernels_ = Kernels();
  const int64_t row_blocks_, tiles_;
  int64_t depth_, a_width_;
  T* a_ = nullptr;
  T* b_ = nullptr;
  std::vector<float> sums_;
  bool whole_b_ = false;   // b_ holds all of b, not the block at hand
  int64_t k_ = 0, n_ = 0;  // of the block at hand
};

template <typename Fn>
void WithProduct(const MatMulParams& p, Fn fn) {
  if (p.type == ComputeType::kBFloat16) {
    Product<BFloat16> product(p);
    fn(product);
  } else {
    Product<float> product(p);
    fn(product);
  }
}

}  // namespace

void MatMul(const MatMulParams& params, ThreadPool& pool) {
  WithProduct(params, [&](auto& product) {
    product.Run([&](int64_t count, auto&& body) { pool.ParallelFor(count, body); });
  });
}

void MatMulOnThisThread(const MatMulParams& params) {
  WithProduct(params, [&](auto& product) {
    product.Run([](int64_t count, auto&& body) { body(int64_t{0}, count, 0); });
  });
}

void PackedB::Pack(const MatMulParams& params, ThreadPool& pool) {
  WithProduct(params, [&](auto& product) {
    product.PackWholeB(PackedBAccess::Storage(*this),
                       [&](int64_t count, auto&& body) { pool.ParallelFor(count, body); });
  });
}

}  // namespace hanlin
