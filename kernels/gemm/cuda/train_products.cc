// Plans and their cache. cublasLt counts matrices by columns, so a row-major [rows, columns] is its
// [columns x rows], and every product comes out with its operands exchanged:
//   forward  y^T  [outputs x rows]   = W (transposed) x^T
//   input    dx^T [inputs x rows]    = W dy^T
//   weight   dW^T [inputs x outputs] = x^T dy (transposed), or += that
#include "kernels/gemm/cuda/train_products.h"

#include <limits>
#include <map>
#include <tuple>

#include "common/cuda/buffer.h"
#include "kernels/gemm/cuda/cublas_lt_plan.h"

namespace hanlin {
namespace {

enum class Kind : uint8_t { kForward, kForwardBias, kInput, kWeight };

constexpr size_t kMaxPlans = 4096;
constexpr uint32_t kMaxAlignment = 256;  // more means nothing to cublasLt

using Key = std::tuple<Kind, ComputeType, int64_t, int64_t, int64_t, uint32_t>;

// Operands in the order of cublasLt.
struct Operands {
  const void* a;
  const void* b;
  const void* bias;
  void* d;
};

uint32_t AlignmentOf(const Operands& o) {
  const auto bits = reinterpret_cast<uintptr_t>(o.a) | reinterpret_cast<uintptr_t>(o.b) |
                    reinterpret_cast<uintptr_t>(o.d) | kMaxAlignment;
  return static_cast<uint32_t>(bits & -bits);
}

}  // namespace

struct CudaTrainProducts::Impl {
  absl::StatusOr<std::unique_ptr<CublasLtPlan>> Describe(Kind kind, const Shape& shape,
                                                         const Operands& operands) const;
  absl::Status Choose(const Shape& shape, uint32_t alignment, CublasLtPlan& plan) const;
  // d = the product + beta d
  absl::Status Run(Kind kind, const Shape& shape, const Operands& operands, float beta,
                   const CudaStream& stream);

  std::unique_ptr<CublasLtApi> api;
  DeviceBuffer<uint8_t> workspace;
  std::map<Key, std::unique_ptr<CublasLtPlan>> plans;
};

absl::StatusOr<std::unique_ptr<CublasLtPlan>> CudaTrainProducts::Impl::Describe(
    Kind kind, const Shape& shape, const Operands& operands) const {
  ASSIGN_OR_RETURN(std::unique_ptr<CublasLtPlan> plan, CublasLtPlan::Create(*api));
  const cudaDataType_t type = shape.type == ComputeType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  switch (kind) {
    case Kind::kForwardBias: {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
      RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type));
      RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias));
      [[fallthrough]];
    }
    case Kind::kForward:
      RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_TRANSA, transposed));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->a, type, shape.inputs, shape.outputs));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->b, type, shape.inputs, shape.rows));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->d, type, shape.outputs, shape.rows));
      break;
    case Kind::kInput:
      RETURN_IF_ERROR(plan->MakeLayout(&plan->a, type, shape.inputs, shape.outputs));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->b, type, shape.outputs, shape.rows));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->d, type, shape.inputs, shape.rows));
      break;
    case Kind::kWeight:
      RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_TRANSB, transposed));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->a, type, shape.inputs, shape.rows));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->b, type, shape.outputs, shape.rows));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->d, CUDA_R_32F, shape.inputs, shape.outputs));
      break;
  }
  RETURN_IF_ERROR(Choose(shape, AlignmentOf(operands), *plan));
  return plan;
}

absl::Status CudaTrainProducts::Impl::Choose(const Shape& shape, uint32_t alignment,
                                             CublasLtPlan& plan) const {
  ASSIGN_OR_RETURN(const auto algorithms, plan.Candidates(workspace.size(), alignment, 1));
  if (algorithms.empty()) {
    return Unimplemented(
        "cublasLt has no algorithm for {} rows, {} outputs, {} inputs, {}, aligned to {} bytes",
        shape.rows, shape.outputs, shape.inputs,
        shape.type == ComputeType::kFloat32 ? "fp32" : "bf16", alignment);
  }
  plan.algorithm = algorithms.front();
  return absl::OkStatus();
}

absl::Status CudaTrainProducts::Impl::Run(Kind kind, const Shape& shape, const Operands& operands,
                                          float beta, const CudaStream& stream) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (shape.rows < 1 || shape.outputs < 1 || shape.inputs < 1 || shape.rows > kMax ||
      shape.outputs > kMax || shape.inputs > kMax) {
    return InvalidArgument("product of {} rows, {} outputs, {} inputs", shape.rows, shape.outputs,
                           shape.inputs);
  }
  const uint32_t alignment = AlignmentOf(operands);
  const Key key = {kind, shape.type, shape.rows, shape.outputs, shape.inputs, alignment};
  auto found = plans.find(key);
  if (found == plans.end()) {
    ASSIGN_OR_RETURN(std::unique_ptr<CublasLtPlan> made, Describe(kind, shape, operands));
    if (plans.size() >= kMaxPlans) plans.clear();
    found = plans.emplace(key, std::move(made)).first;
  }
  const CublasLtPlan& plan = *found->second;
  if (operands.bias != nullptr) {
    RETURN_IF_ERROR(api->Check(api->desc_set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                             &operands.bias, sizeof(operands.bias)),
                               "bias"));
  }
  const float alpha = 1.0f;
  return api->Check(api->matmul(api->handle, plan.desc, &alpha, operands.a, plan.a, operands.b,
                                plan.b, &beta, operands.d, plan.d, operands.d, plan.d,
                                &plan.algorithm, workspace.data(), workspace.size(), stream.get()),
                    "cublasLtMatmul");
}

CudaTrainProducts::CudaTrainProducts(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CudaTrainProducts::~CudaTrainProducts() {
  impl_->plans.clear();  // before the library's handle goes
}

absl::StatusOr<std::unique_ptr<CudaTrainProducts>> CudaTrainProducts::Create() {
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->api, CublasLtApi::Open());
  ASSIGN_OR_RETURN(impl->workspace, DeviceBuffer<uint8_t>::Create(kWorkspaceBytes));
  return std::unique_ptr<CudaTrainProducts>(new CudaTrainProducts(std::move(impl)));
}

absl::Status CudaTrainProducts::Forward(const Shape& shape, const void* x, const void* weight,
                                        const void* bias, void* y, const CudaStream& stream) {
  return impl_->Run(bias == nullptr ? Kind::kForward : Kind::kForwardBias, shape,
                    {weight, x, bias, y}, 0, stream);
}

absl::Status CudaTrainProducts::Input(const Shape& shape, const void* dy, const void* weight,
                                      void* dx, const CudaStream& stream) {
  return impl_->Run(Kind::kInput, shape, {weight, dy, nullptr, dx}, 0, stream);
}

absl::Status CudaTrainProducts::Weight(const Shape& shape, const void* dy, const void* x,
                                       float* dweight, bool accumulate, const CudaStream& stream) {
  return impl_->Run(Kind::kWeight, shape, {x, dy, nullptr, dweight}, accumulate ? 1.0f : 0.0f,
                    stream);
}

}  // namespace hanlin
