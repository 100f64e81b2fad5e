// See cublas_lt_plan.h.
#include "kernels/gemm/cuda/cublas_lt_plan.h"

#include <limits>

namespace hanlin {

absl::StatusOr<std::unique_ptr<CublasLtPlan>> CublasLtPlan::Create(const CublasLtApi& api) {
  std::unique_ptr<CublasLtPlan> plan(new CublasLtPlan(api));
  RETURN_IF_ERROR(api.Check(api.desc_create(&plan->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                            "cublasLtMatmulDescCreate"));
  return plan;
}

CublasLtPlan::~CublasLtPlan() {
  if (desc != nullptr) api_.desc_destroy(desc);
  for (cublasLtMatrixLayout_t layout : {a, b, d}) {
    if (layout != nullptr) api_.layout_destroy(layout);
  }
}

absl::Status CublasLtPlan::MakeLayout(cublasLtMatrixLayout_t* layout, cudaDataType_t type,
                                      int64_t rows, int64_t columns) const {
  return api_.Check(api_.layout_create(layout, type, rows, columns, rows),
                    "cublasLtMatrixLayoutCreate");
}

absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> CublasLtPlan::Candidates(uint64_t workspace_bytes,
                                                                           uint32_t alignment,
                                                                           int count) const {
  cublasLtMatmulPreference_t raw = nullptr;
  RETURN_IF_ERROR(api_.Check(api_.preference_create(&raw), "cublasLtMatmulPreferenceCreate"));
  const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>,
                        decltype(cublasLtMatmulPreferenceDestroy)*>
      preference(raw, api_.preference_destroy);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    return api_.Check(api_.preference_set(raw, attribute, &value, sizeof(value)),
                      "cublasLtMatmulPreferenceSetAttribute");
  };
  // Parts of a split k are added in fp32 and in a fixed order.
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes));
  RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions));
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    RETURN_IF_ERROR(set(attribute, alignment));
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(count);
  int found = 0;
  const cublasStatus_t status =
      api_.get_heuristic(api_.handle, desc, a, b, d, d, raw, count, results.data(), &found);
  if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_NOT_SUPPORTED) {
    return api_.Check(status, "cublasLtMatmulAlgoGetHeuristic");
  }
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < found; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(results[i].algo);
  }
  return algorithms;
}

absl::StatusOr<double> CublasLtPlan::ChooseFastest(
    const std::vector<cublasLtMatmulAlgo_t>& algorithms, const CudaStream& stream,
    const std::function<absl::Status()>& launch) {
  constexpr double kHopeless = 1.3;  // times the best, at the first run
  double best = std::numeric_limits<double>::infinity();
  cublasLtMatmulAlgo_t fastest = {};
  absl::Status failure = Internal("no algorithm to choose from");
  for (const cublasLtMatmulAlgo_t& candidate : algorithms) {
    algorithm = candidate;
    const auto once = MeasureMilliseconds(stream, 1, 1, launch);
    if (!once.ok()) failure = once.status();
    if (!once.ok() || *once > kHopeless * best) continue;
    const auto median = MeasureMilliseconds(stream, 3, 1, launch);
    if (!median.ok() || *median >= best) continue;
    best = *median;
    fastest = candidate;
  }
  if (best == std::numeric_limits<double>::infinity()) return failure;
  algorithm = fastest;
  return best;
}

absl::Status CublasLtPlan::Launch(const void* left, const void* right, float beta,
                                  const void* addend, void* result,
                                  const CublasLtWorkspace& workspace, cudaStream_t stream) const {
  const float alpha = 1.0f;
  return api_.Check(api_.matmul(api_.handle, desc, &alpha, left, a, right, b, &beta, addend, d,
                                result, d, &algorithm, workspace.data, workspace.bytes, stream),
                    "cublasLtMatmul");
}

}  // namespace hanlin
