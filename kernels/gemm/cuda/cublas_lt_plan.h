// The descriptors of one product of cublasLt, and the algorithms that it proposes for them. Not
// thread-safe while it is being made.
#ifndef HANLIN_KERNELS_GEMM_CUDA_CUBLAS_LT_PLAN_H_
#define HANLIN_KERNELS_GEMM_CUDA_CUBLAS_LT_PLAN_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "common/cuda/stream.h"
#include "kernels/gemm/cuda/cublas_lt_api.h"

namespace hanlin {

struct CublasLtWorkspace {
  void* data = nullptr;  // on the device
  size_t bytes = 0;
};

// Not movable: cublasLt holds plain pointers. `api` must outlive it.
class CublasLtPlan {
 public:
  // fp32 sums, no epilogue.
  static absl::StatusOr<std::unique_ptr<CublasLtPlan>> Create(const CublasLtApi& api);
  CublasLtPlan(const CublasLtPlan&) = delete;
  ~CublasLtPlan();

  template <typename T>
  absl::Status Set(cublasLtMatmulDescAttributes_t attribute, const T& value) const {
    return api_.Check(api_.desc_set(desc, attribute, &value, sizeof(value)),
                      "cublasLtMatmulDescSetAttribute");
  }
  // Makes a, b or d: a matrix counted by columns, without gaps.
  absl::Status MakeLayout(cublasLtMatrixLayout_t* layout, cudaDataType_t type, int64_t rows,
                          int64_t columns) const;

  // At most `count` algorithms, best first, for operands aligned to so many bytes; their sums have
  // one order. Empty where cublasLt knows none.
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> Candidates(uint64_t workspace_bytes,
                                                               uint32_t alignment, int count) const;

  // Leaves the fastest of `algorithms` in `algorithm` and returns its milliseconds; algorithms that
  // `launch` cannot run are passed over. Waits for the stream. An error when none runs.
  absl::StatusOr<double> ChooseFastest(const std::vector<cublasLtMatmulAlgo_t>& algorithms,
                                       const CudaStream& stream,
                                       const std::function<absl::Status()>& launch);

  // result = the product + beta addend; the addend is laid out like the result and may be it.
  absl::Status Launch(const void* left, const void* right, float beta, const void* addend,
                      void* result, const CublasLtWorkspace& workspace, cudaStream_t stream) const;

  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};

 private:
  explicit CublasLtPlan(const CublasLtApi& api) : api_(api) {}
  const CublasLtApi& api_;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_CUBLAS_LT_PLAN_H_
