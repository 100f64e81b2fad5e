// The functions of libcublasLt.so.13 that we call, found at run time; its header gives the types.
// The handle lives as long as the object. Thread-safe after Open.
#ifndef HANLIN_KERNELS_GEMM_CUDA_CUBLAS_LT_API_H_
#define HANLIN_KERNELS_GEMM_CUDA_CUBLAS_LT_API_H_

#include <cublasLt.h>

#include <memory>
#include <string_view>

#include "common/status/status.h"

namespace hanlin {

struct CublasLtApi {
  static absl::StatusOr<std::unique_ptr<CublasLtApi>> Open();
  ~CublasLtApi();

  // OK, or an INTERNAL error with the library's words (UNIMPLEMENTED for what it does not support).
  absl::Status Check(cublasStatus_t status, std::string_view what) const;

  cublasLtHandle_t handle = nullptr;
  decltype(cublasLtCreate)* create = nullptr;
  decltype(cublasLtDestroy)* destroy = nullptr;
  decltype(cublasLtGetStatusString)* status_string = nullptr;
  decltype(cublasLtMatmulDescCreate)* desc_create = nullptr;
  decltype(cublasLtMatmulDescDestroy)* desc_destroy = nullptr;
  decltype(cublasLtMatmulDescSetAttribute)* desc_set = nullptr;
  decltype(cublasLtMatrixLayoutCreate)* layout_create = nullptr;
  decltype(cublasLtMatrixLayoutDestroy)* layout_destroy = nullptr;
  decltype(cublasLtMatmulPreferenceCreate)* preference_create = nullptr;
  decltype(cublasLtMatmulPreferenceDestroy)* preference_destroy = nullptr;
  decltype(cublasLtMatmulPreferenceSetAttribute)* preference_set = nullptr;
  decltype(cublasLtMatmulAlgoGetHeuristic)* get_heuristic = nullptr;
  decltype(cublasLtMatmulAlgoCheck)* algo_check = nullptr;
  decltype(cublasLtMatmul)* matmul = nullptr;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_CUBLAS_LT_API_H_
