// Plans, their cache and the choice of algorithms. cublasLt counts matrices by columns: our row-
// major y [m, n] is its D [n x m], W [n, k] its A transposed, x [m, k] its B, and a bias runs along
// D's rows as its epilogues want it.
#include "kernels/gemm/cuda/cublas_lt.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <tuple>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/status.h"
#include "kernels/gemm/cuda/cublas_lt_plan.h"
#include "kernels/gemm/cuda/gelu_launch.h"

namespace hanlin {
namespace {

constexpr size_t kMaxPlans = 4096;
constexpr uint32_t kMaxAlignment = 256;  // more means nothing to cublasLt

// What an algorithm depends on; m is exact for a plan, a bucket for a choice.
using Key = std::tuple<int64_t, int64_t, int64_t, ComputeType, LinearEpilogue, bool, uint32_t>;

uint32_t AlignmentOf(const GemmParams& params) {
  const auto bits = reinterpret_cast<uintptr_t>(params.weight) |
                    reinterpret_cast<uintptr_t>(params.x) | reinterpret_cast<uintptr_t>(params.y) |
                    kMaxAlignment;
  return static_cast<uint32_t>(bits & -bits);
}

Key KeyOf(const GemmParams& params, int64_t m) {
  return {m,
          params.n,
          params.k,
          params.type,
          params.epilogue,
          params.bias != nullptr,
          AlignmentOf(params)};
}

bool StoresFloat(const GemmParams& params) {
  return params.type == ComputeType::kFloat32 || params.epilogue == LinearEpilogue::kResidual ||
         params.epilogue == LinearEpilogue::kFloat32;
}

cublasLtEpilogue_t EpilogueOf(const GemmParams& params) {
  const bool has_bias = params.bias != nullptr;
  if (params.epilogue == LinearEpilogue::kGeluTanh) {
    return has_bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
  }
  return has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

absl::Status CheckParams(const GemmParams& params) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (params.m < 1 || params.n < 1 || params.k < 1 || params.m > kMax || params.n > kMax ||
      params.k > kMax) {
    return InvalidArgument("product of m {}, n {}, k {}", params.m, params.n, params.k);
  }
  if (params.weight == nullptr || params.x == nullptr || params.y == nullptr) {
    return InvalidArgument("product needs weight, x and y");
  }
  if (params.bias != nullptr && params.bias_bf16 == nullptr && !StoresFloat(params)) {
    return InvalidArgument("cublasLt wants the bias in bf16 when it stores bf16");
  }
  return absl::OkStatus();
}

}  // namespace

struct CublasLt::Impl {
  absl::StatusOr<std::unique_ptr<CublasLtPlan>> Describe(const GemmParams& params) const;
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> Candidates(const GemmParams& params,
                                                               const CublasLtPlan& plan,
                                                               int count) const;
  // The plan of params, made when it is not in the cache.
  absl::StatusOr<CublasLtPlan*> Find(const GemmParams& params);
  absl::Status Launch(const GemmParams& params, const CublasLtPlan& plan,
                      cudaStream_t stream) const;

  Options options;
  std::unique_ptr<CublasLtApi> api;
  DeviceBuffer<uint8_t> workspace;
  std::map<Key, std::unique_ptr<CublasLtPlan>> plans;  // by exact m
  std::map<Key, cublasLtMatmulAlgo_t> prepared;        // by bucket of m
};

absl::StatusOr<std::unique_ptr<CublasLtPlan>> CublasLt::Impl::Describe(
    const GemmParams& params) const {
  ASSIGN_OR_RETURN(std::unique_ptr<CublasLtPlan> plan, CublasLtPlan::Create(*api));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_TRANSA, transposed));
  RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_EPILOGUE, EpilogueOf(params)));
  const cudaDataType_t output = StoresFloat(params) ? CUDA_R_32F : CUDA_R_16BF;
  if (params.bias != nullptr) {
    const void* bias = params.bias;  // only whether there is one matters here
    RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias));
    RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, output));
  }
  const cudaDataType_t input = params.type == ComputeType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
  RETURN_IF_ERROR(plan->MakeLayout(&plan->a, input, params.k, params.n));
  RETURN_IF_ERROR(plan->MakeLayout(&plan->b, input, params.k, params.m));
  RETURN_IF_ERROR(plan->MakeLayout(&plan->d, output, params.n, params.m));
  return plan;
}

absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> CublasLt::Impl::Candidates(
    const GemmParams& params, const CublasLtPlan& plan, int count) const {
  const uint32_t alignment = AlignmentOf(params);
  ASSIGN_OR_RETURN(auto algorithms, plan.Candidates(workspace.size(), alignment, count));
  if (algorithms.empty()) {
    return Unimplemented("cublasLt has no algorithm for m {}, n {}, k {}, {}, aligned to {} bytes",
                         params.m, params.n, params.k,
                         params.type == ComputeType::kFloat32 ? "fp32" : "bf16", alignment);
  }
  return algorithms;
}

absl::StatusOr<CublasLtPlan*> CublasLt::Impl::Find(const GemmParams& params) {
  const Key key = KeyOf(params, params.m);
  if (const auto found = plans.find(key); found != plans.end()) return found->second.get();
  ASSIGN_OR_RETURN(std::unique_ptr<CublasLtPlan> plan, Describe(params));
  const auto chosen = prepared.find(KeyOf(params, CublasLtBucket(params.m)));
  cublasLtMatmulHeuristicResult_t result = {};
  if (chosen != prepared.end() &&
      api->algo_check(api->handle, plan->desc, plan->a, plan->b, plan->d, plan->d, &chosen->second,
                      &result) == CUBLAS_STATUS_SUCCESS &&
      result.workspaceSize <= workspace.size()) {
    plan->algorithm = chosen->second;
  } else {
    ASSIGN_OR_RETURN(const auto algorithms, Candidates(params, *plan, 1));
    plan->algorithm = algorithms.front();
  }
  if (plans.size() >= kMaxPlans) plans.clear();
  return (plans[key] = std::move(plan)).get();
}

absl::Status CublasLt::Impl::Launch(const GemmParams& params, const CublasLtPlan& plan,
                                    cudaStream_t stream) const {
  if (params.bias != nullptr) {
    const void* bias = StoresFloat(params) ? static_cast<const void*>(params.bias)
                                           : static_cast<const void*>(params.bias_bf16);
    RETURN_IF_ERROR(api->Check(
        api->desc_set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)), "bias"));
  }
  const float beta = params.epilogue == LinearEpilogue::kResidual ? 1.0f : 0.0f;
  RETURN_IF_ERROR(plan.Launch(params.weight, params.x, beta, params.y, params.y,
                              {workspace.data(), workspace.size()}, stream));
  if (params.epilogue != LinearEpilogue::kGeluErf) return absl::OkStatus();
  return CudaStatus(LaunchGeluErf(params.y, params.m * params.n, params.type, stream),
                    "launch of GELU");
}

CublasLt::CublasLt(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CublasLt::~CublasLt() {
  if (impl_ != nullptr) impl_->plans.clear();  // before the library's handle goes
}

absl::StatusOr<std::unique_ptr<CublasLt>> CublasLt::Create(const Options& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  ASSIGN_OR_RETURN(impl->api, CublasLtApi::Open());
  ASSIGN_OR_RETURN(impl->workspace, DeviceBuffer<uint8_t>::Create(options.workspace_bytes));
  return std::unique_ptr<CublasLt>(new CublasLt(std::move(impl)));
}

absl::Status CublasLt::Prepare(const GemmParams& params, const CudaStream& stream) {
  RETURN_IF_ERROR(CheckParams(params));
  ASSIGN_OR_RETURN(const auto plan, impl_->Describe(params));
  ASSIGN_OR_RETURN(const auto algorithms,
                   impl_->Candidates(params, *plan, std::max(1, impl_->options.candidates)));
  const auto launch = [&] { return impl_->Launch(params, *plan, stream.get()); };
  if (plan->ChooseFastest(algorithms, stream, launch).ok()) {
    impl_->prepared[KeyOf(params, CublasLtBucket(params.m))] = plan->algorithm;
  }
  impl_->plans.clear();  // made before the choice
  return absl::OkStatus();
}

absl::Status CublasLt::Run(const GemmParams& params, const CudaStream& stream) {
  RETURN_IF_ERROR(CheckParams(params));
  ASSIGN_OR_RETURN(const CublasLtPlan* plan, impl_->Find(params));
  return impl_->Launch(params, *plan, stream.get());
}

int64_t CublasLtBucket(int64_t m) {
  int64_t bucket = 1;
  while (bucket < m) bucket *= 2;
  return bucket > 128 && m <= bucket / 4 * 3 ? bucket / 4 * 3 : bucket;
}

}  // namespace hanlin
