// Symbol by symbol.
#include "kernels/gemm/cuda/cublas_lt_api.h"

#include "common/cuda/dynamic_library.h"

namespace hanlin {

absl::StatusOr<std::unique_ptr<CublasLtApi>> CublasLtApi::Open() {
  ASSIGN_OR_RETURN(const DynamicLibrary library,
                   DynamicLibrary::Open("libcublasLt.so.13", "matrix products on the GPU"));
  auto api = std::make_unique<CublasLtApi>();
  RETURN_IF_ERROR(library.Find("cublasLtCreate", &api->create));
  RETURN_IF_ERROR(library.Find("cublasLtDestroy", &api->destroy));
  RETURN_IF_ERROR(library.Find("cublasLtGetStatusString", &api->status_string));
  RETURN_IF_ERROR(library.Find("cublasLtMatmulDescCreate", &api->desc_create));
  RETURN_IF_ERROR(library.Find("cublasLtMatmulDescDestroy", &api->desc_destroy));
  RETURN_IF_ERROR(library.Find("cublasLtMatmulDescSetAttribute", &api->desc_set));
  RETURN_IF_ERROR(library.Find("cublasLtMatrixLayoutCreate", &api->layout_create));
  RETURN_IF_ERROR(library.Find("cublasLtMatrixLayoutDestroy", &api->layout_destroy));
  RETURN_IF_ERROR(library.Find("cublasLtMatmulPreferenceCreate", &api->preference_create));
  RETURN_IF_ERROR(library.Find("cublasLtMatmulPreferenceDestroy", &api->preference_destroy));
  RETURN_IF_ERROR(library.Find("cublasLtMatmulPreferenceSetAttribute", &api->preference_set));
  RETURN_IF_ERROR(library.Find("cublasLtMatmulAlgoGetHeuristic", &api->get_heuristic));
  RETURN_IF_ERROR(library.Find("cublasLtMatmulAlgoCheck", &api->algo_check));
  RETURN_IF_ERROR(library.Find("cublasLtMatmul", &api->matmul));
  RETURN_IF_ERROR(api->Check(api->create(&api->handle), "cublasLtCreate"));
  return api;
}

CublasLtApi::~CublasLtApi() {
  if (handle != nullptr) destroy(handle);
}

absl::Status CublasLtApi::Check(cublasStatus_t status, std::string_view what) const {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) {
    return Unimplemented("{}: {}", what, status_string(status));
  }
  return Internal("{}: {}", what, status_string(status));
}

}  // namespace hanlin
