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

enum class Kind : uint8_t {
  kForward,
  kForwardBias,
  kForwardSum,
  kForwardGelu,
  kInput,
  kInputGelu,
  kWeight
};

constexpr size_t kMaxPlans = 4096;
// Products that are worth a timing: large ones of a shape that comes again. A classifier's last
// block of masked rows has another number of rows in every batch; whole batches are multiples of
// this. The limit bounds the time that a run spends on choices. By estimate one bf16 sum in 10000
// shows another order of its terms: the size makes sure that some do.
constexpr double kLargeProduct = 1e10;
constexpr int64_t kTimedRows = 64;
constexpr int kMaxTimed = 128;
constexpr uint32_t kMaxAlignment = 256;  // more means nothing to cublasLt

using Key = std::tuple<Kind, ComputeType, int64_t, int64_t, int64_t, uint32_t>;

// Operands in the order of cublasLt.
struct Operands {
  const void* a;
  const void* b;
  const void* bias;
  void* d;
  const void* aux = nullptr;     // kForwardGelu: written
  const void* addend = nullptr;  // null: d itself
};

uint32_t AlignmentOf(const Operands& o) {
  const auto bits = reinterpret_cast<uintptr_t>(o.a) | reinterpret_cast<uintptr_t>(o.b) |
                    reinterpret_cast<uintptr_t>(o.d) | reinterpret_cast<uintptr_t>(o.aux) |
                    reinterpret_cast<uintptr_t>(o.addend) | kMaxAlignment;
  return static_cast<uint32_t>(bits & -bits);
}

absl::Status SetPointers(const CublasLtPlan& plan, const Operands& operands) {
  if (operands.bias != nullptr) {
    RETURN_IF_ERROR(plan.Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias));
  }
  if (operands.aux == nullptr) return absl::OkStatus();
  return plan.Set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, operands.aux);
}

absl::Status CheckGelu(const CudaTrainProducts::Shape& shape) {
  if (shape.type == ComputeType::kBFloat16) return absl::OkStatus();
  return Unimplemented("products with GELU are in bf16 only");
}

CublasLtBytes BytesOf(Kind kind, const CudaTrainProducts::Shape& shape) {
  const size_t typed = SizeOf(shape.type);
  const size_t x = shape.rows * shape.inputs * typed, y = shape.rows * shape.outputs * typed;
  const size_t weight = shape.outputs * shape.inputs;  // elements
  const size_t bias = shape.outputs * sizeof(float);   // enough for either type
  switch (kind) {
    case Kind::kForward:
      return {.a = weight * typed, .b = x, .d = y};
    case Kind::kForwardBias:
      return {.a = weight * typed, .b = x, .d = y, .bias = bias};
    case Kind::kForwardSum:
      return {.a = weight * typed, .b = x, .d = y, .bias = bias, .addend = y};
    case Kind::kForwardGelu:
      return {.a = weight * typed, .b = x, .d = y, .bias = bias, .aux = y};
    case Kind::kInput:
      return {.a = weight * typed, .b = y, .d = x};
    case Kind::kInputGelu:
      return {.a = weight * typed, .b = y, .d = x, .aux = x};
    case Kind::kWeight:
      return {.a = x, .b = y, .d = weight * sizeof(float)};
  }
  return {};
}

}  // namespace

struct CudaTrainProducts::Impl {
  // Without a plan: cublasLt has no algorithm.
  struct Entry {
    std::unique_ptr<CublasLtPlan> plan;
    EqualBitsChoice choice;
  };
  absl::StatusOr<std::unique_ptr<CublasLtPlan>> Describe(Kind kind, const Shape& shape) const;
  absl::StatusOr<Entry> Choose(Kind kind, const Shape& shape, const Operands& operands,
                               const CudaStream& stream);
  // d = the product + beta times the addend
  absl::Status Run(Kind kind, const Shape& shape, const Operands& operands, float beta,
                   const CudaStream& stream);

  int candidates = 1;
  int timed_shapes = 0;
  std::unique_ptr<CublasLtApi> api;
  DeviceBuffer<uint8_t> workspace;
  std::map<Key, Entry> plans;
  EqualBitsChoice last_choice;
};

absl::StatusOr<std::unique_ptr<CublasLtPlan>> CudaTrainProducts::Impl::Describe(
    Kind kind, const Shape& shape) const {
  ASSIGN_OR_RETURN(std::unique_ptr<CublasLtPlan> plan, CublasLtPlan::Create(*api));
  const cudaDataType_t type = shape.type == ComputeType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const auto epilogue = [&](cublasLtEpilogue_t value) {
    return plan->Set(CUBLASLT_MATMUL_DESC_EPILOGUE, value);
  };
  const auto bias = [&](cublasLtEpilogue_t value) -> absl::Status {
    RETURN_IF_ERROR(epilogue(value));
    return plan->Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
  };
  switch (kind) {
    case Kind::kForward:
    case Kind::kForwardBias:
    case Kind::kForwardSum:
    case Kind::kForwardGelu:
      if (kind == Kind::kForwardBias || kind == Kind::kForwardSum) {
        RETURN_IF_ERROR(bias(CUBLASLT_EPILOGUE_BIAS));
      }
      if (kind == Kind::kForwardGelu) {
        RETURN_IF_ERROR(bias(CUBLASLT_EPILOGUE_GELU_AUX_BIAS));
        RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, shape.outputs));
      }
      RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_TRANSA, transposed));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->a, type, shape.inputs, shape.outputs));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->b, type, shape.inputs, shape.rows));
      RETURN_IF_ERROR(plan->MakeLayout(&plan->d, type, shape.outputs, shape.rows));
      break;
    case Kind::kInput:
    case Kind::kInputGelu:
      if (kind == Kind::kInputGelu) {
        RETURN_IF_ERROR(epilogue(CUBLASLT_EPILOGUE_DGELU));
        RETURN_IF_ERROR(plan->Set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, shape.inputs));
      }
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
  return plan;
}

absl::StatusOr<CudaTrainProducts::Impl::Entry> CudaTrainProducts::Impl::Choose(
    Kind kind, const Shape& shape, const Operands& operands, const CudaStream& stream) {
  Entry entry;
  ASSIGN_OR_RETURN(std::unique_ptr<CublasLtPlan> plan, Describe(kind, shape));
  RETURN_IF_ERROR(SetPointers(*plan, operands));  // their alignment counts
  const double flops = 2.0 * shape.rows * shape.outputs * shape.inputs;
  const bool timed = candidates > 1 && flops >= kLargeProduct && shape.rows % kTimedRows == 0 &&
                     timed_shapes < kMaxTimed;
  ASSIGN_OR_RETURN(const auto algorithms, plan->Candidates(workspace.size(), AlignmentOf(operands),
                                                           timed ? candidates : 1));
  if (algorithms.empty()) return entry;
  plan->algorithm = algorithms.front();
  entry.choice.candidates = static_cast<int>(algorithms.size());
  if (algorithms.size() > 1) {
    ++timed_shapes;
    ASSIGN_OR_RETURN(entry.choice,
                     ChooseByEqualBits(algorithms, BytesOf(kind, shape),
                                       {workspace.data(), workspace.size()}, stream, *plan));
  }
  entry.plan = std::move(plan);
  return entry;
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
    ASSIGN_OR_RETURN(Entry made, Choose(kind, shape, operands, stream));
    if (plans.size() >= kMaxPlans) plans.clear();
    found = plans.emplace(key, std::move(made)).first;
  }
  const Entry& entry = found->second;
  if (entry.plan == nullptr) {
    return Unimplemented(
        "cublasLt has no algorithm for {} rows, {} outputs, {} inputs, {}, aligned to {} bytes",
        shape.rows, shape.outputs, shape.inputs,
        shape.type == ComputeType::kFloat32 ? "fp32" : "bf16", alignment);
  }
  last_choice = entry.choice;
  RETURN_IF_ERROR(SetPointers(*entry.plan, operands));
  return entry.plan->Launch(operands.a, operands.b, beta,
                            operands.addend == nullptr ? operands.d : operands.addend, operands.d,
                            {workspace.data(), workspace.size()}, stream.get());
}

CudaTrainProducts::CudaTrainProducts(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CudaTrainProducts::~CudaTrainProducts() {
  impl_->plans.clear();  // before the library's handle goes
}

absl::StatusOr<std::unique_ptr<CudaTrainProducts>> CudaTrainProducts::Create(int candidates) {
  auto impl = std::make_unique<Impl>();
  impl->candidates = candidates;
  ASSIGN_OR_RETURN(impl->api, CublasLtApi::Open());
  ASSIGN_OR_RETURN(impl->workspace, DeviceBuffer<uint8_t>::Create(kWorkspaceBytes));
  return std::unique_ptr<CudaTrainProducts>(new CudaTrainProducts(std::move(impl)));
}

absl::Status CudaTrainProducts::Forward(const Shape& shape, const void* x, const void* weight,
                                        const void* bias, void* y, const CudaStream& stream) {
  return impl_->Run(bias == nullptr ? Kind::kForward : Kind::kForwardBias, shape,
                    {weight, x, bias, y}, 0, stream);
}

absl::Status CudaTrainProducts::ForwardSum(const Shape& shape, const void* x, const void* weight,
                                           const void* bias, const void* base, void* y,
                                           const CudaStream& stream) {
  return impl_->Run(Kind::kForwardSum, shape, {weight, x, bias, y, nullptr, base}, 1, stream);
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

absl::Status CudaTrainProducts::ForwardGelu(const Shape& shape, const void* x, const void* weight,
                                            const void* bias, void* up, void* act,
                                            const CudaStream& stream) {
  RETURN_IF_ERROR(CheckGelu(shape));
  return impl_->Run(Kind::kForwardGelu, shape, {weight, x, bias, act, up}, 0, stream);
}

absl::Status CudaTrainProducts::InputGelu(const Shape& shape, const void* dy, const void* weight,
                                          const void* up, void* dx, const CudaStream& stream) {
  RETURN_IF_ERROR(CheckGelu(shape));
  return impl_->Run(Kind::kInputGelu, shape, {weight, dy, nullptr, dx, up}, 0, stream);
}

const EqualBitsChoice& CudaTrainProducts::last_choice() const { return impl_->last_choice; }

}  // namespace hanlin
