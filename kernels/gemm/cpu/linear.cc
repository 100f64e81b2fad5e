// Chooses the micro-kernel and hands each thread its panels; linear_simd.cc does the work.
#include "kernels/gemm/cpu/linear.h"

#include "kernels/base/isa.h"
#include "kernels/gemm/cpu/linear_kernels.h"

namespace hanlin {

void Linear(const PackedMatrix& w, const LinearParams& params, ThreadPool& pool) {
  if (params.m == 0 || w.n == 0) return;
  const LinearKernels& kernels = HANLIN_ACTIVE_KERNELS(kLinearKernels);
  const auto run = w.type == ComputeType::kFloat32 ? kernels.float32 : kernels.bfloat16;
  pool.ParallelFor(w.panels(), [&](int64_t begin, int64_t end, int) {
    run({params, w.data, w.n, w.k, begin, end});
  });
}

}  // namespace hanlin
