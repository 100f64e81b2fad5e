// Matrix products on plain row-major fp32 matrices, for training: forward, dX and dW of a linear
// layer differ only in which operand is transposed. (Serving uses linear.h, whose weights are
// packed once; in training they change every step.)
//
// In fp32, or with op(a) and op(b) rounded to bf16 on the way, unless they are bf16 already, and
// their products added in fp32: that takes half the time where the processor has vdpbf16ps, and an
// eighth where it has AMX.
//
// Deterministic: an element is one chain of fma over ascending k (of pairs of k in bf16, of 16
// pairs on AMX), so it depends neither on the number of threads nor on how many rows or columns
// there are. Thread-safe; scratch memory is kept per calling thread: 4 bytes x kMatMulDepth x m at
// most, and 1.25 MiB; where c is bf16 or an epilogue follows, k in place of kMatMulDepth.
#ifndef HANLIN_KERNELS_GEMM_CPU_MATMUL_H_
#define HANLIN_KERNELS_GEMM_CPU_MATMUL_H_

#include <cstdint>
#include <vector>

#include "common/threading/thread_pool.h"
#include "kernels/base/array.h"
#include "kernels/gemm/cpu/matmul_epilogue.h"

namespace hanlin {

inline constexpr int64_t kPackSteps = 16;
// Steps (1 k, or 2 in bf16) that are multiplied at a time, at most.
inline constexpr int64_t kMatMulDepth = 320;

class PackedB;

// c = (bias +) (c +) op(a) op(b), op(a) [m, k], op(b) [k, n]. Strides count elements from one
// stored row to the next.
struct MatMulParams {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  ConstArray a;  // stored [m, k], or [k, m] when transposed; of bf16 only where `type` is
  int64_t a_stride = 0;
  bool a_transposed = false;
  float* a_sums = nullptr;  // [m] or null; with a_transposed: the sums of op(a)'s rows are added,
                            // rounded as they are multiplied, kPackSteps steps at a time
  ConstArray b;  // stored [k, n], or [n, k] when transposed; of bf16 only where `type` is
  int64_t b_stride = 0;
  bool b_transposed = false;
  const PackedB* packed_b = nullptr;  // of these n, k, b and type; null: packed on the way
  const float* bias = nullptr;        // [n] or null
  bool accumulate = false;            // add to what c, of fp32, holds; without an epilogue
  Array c;                            // [m, n]
  int64_t c_stride = 0;
  MatMulEpilogue epilogue = MatMulEpilogue::kNone;
  Array other;  // [m, n] of the epilogue, of c's type and stride
  ComputeType type = ComputeType::kFloat32;
};

// op(b) as products read it, for several that share it.
class PackedB {
 public:
  // Of n, k, type and what describes b in `params`.
  void Pack(const MatMulParams& params, ThreadPool& pool);

 private:
  friend class PackedBAccess;
  std::vector<float> storage_;
};

void MatMul(const MatMulParams& params, ThreadPool& pool);

// The same bits, computed by the calling thread alone; may run inside a parallel loop.
void MatMulOnThisThread(const MatMulParams& params);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CPU_MATMUL_H_
