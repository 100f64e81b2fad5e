// The choice of an algorithm that no result shows. Training must give the same bits in every
// process, so the fastest of a timing cannot simply be taken; but many algorithms of cublasLt add a
// sum's terms in the same order and differ in tiles and pipelines only. Those whose result on noise
// equals that of the heuristic's first algorithm bit for bit are timed, and the fastest is taken.
// Noise, not the operands at hand: these may be zeros or sparse, and then any order gives one sum.
#ifndef HANLIN_KERNELS_GEMM_CUDA_EQUAL_BITS_H_
#define HANLIN_KERNELS_GEMM_CUDA_EQUAL_BITS_H_

#include <cstddef>
#include <vector>

#include "common/cuda/stream.h"
#include "kernels/gemm/cuda/cublas_lt_plan.h"

namespace hanlin {

// Of the operands of a product; 0: there is none.
struct CublasLtBytes {
  size_t a = 0, b = 0, d = 0;
  size_t bias = 0, aux = 0, addend = 0;
};

struct EqualBitsChoice {
  int candidates = 0;
  int equal = 0;                 // of these, the first included; 0: nothing was compared
  double first = 0, chosen = 0;  // milliseconds
};

// Leaves the choice in plan.algorithm; the plan's pointers (bias, auxiliary) have to be set anew.
// `algorithms` are in the order of the heuristic. Takes memory for the operands while it runs,
// keeps the first algorithm where there is none, and waits for the stream.
absl::StatusOr<EqualBitsChoice> ChooseByEqualBits(
    const std::vector<cublasLtMatmulAlgo_t>& algorithms, const CublasLtBytes& bytes,
    const CublasLtWorkspace& workspace, const CudaStream& stream, CublasLtPlan& plan);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_EQUAL_BITS_H_
