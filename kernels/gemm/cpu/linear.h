// Linear layer y = epilogue(x W^T) on a PackedMatrix, for any number of rows: decode (GEMV) and
// prefill (GEMM) are the same micro-kernel with more or fewer rows in registers. Batch-invariant:
// every output element is one accumulator that walks k from 0 up, whatever m, the tile, the thread
// count or the neighbours; a row's result is the same bits alone and in a batch (under one Isa).
// Sums are fp32. Parallel over panels of 16 outputs with a static partition.
#ifndef HANLIN_KERNELS_GEMM_CPU_LINEAR_H_
#define HANLIN_KERNELS_GEMM_CPU_LINEAR_H_

#include "common/threading/thread_pool.h"
#include "kernels/gemm/cpu/linear_params.h"
#include "kernels/gemm/cpu/packed_matrix.h"

namespace hanlin {

void Linear(const PackedMatrix& w, const LinearParams& params, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CPU_LINEAR_H_
