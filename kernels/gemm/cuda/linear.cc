// The choice and the dispatch.
#include "kernels/gemm/cuda/linear.h"

#include <utility>

#include "kernels/gemm/cuda/medium.h"
#include "kernels/gemm/cuda/skinny.h"
#include "kernels/gemv/cuda/gemv.h"

namespace hanlin {
namespace {

// Measured on an H100 (docs/gpu_notes.md). Gemv reads x once per row of W: with more rows of x its
// time grows, and only small products, whose time is latency, do not notice.
constexpr int64_t kGemvRows = 2;
constexpr int64_t kSmallProduct = int64_t{1} << 22;
// Elements of x that gemv can hold in shared memory beside short rings.
constexpr int64_t kGemvMaxInputs = 90000;
constexpr int64_t kSkinnyMaxBatch = 64;
// A vocabulary takes the medium product four waves of blocks; cublasLt is 4 % faster there.
constexpr int64_t kMediumMaxOutputs = 32768;

}  // namespace

LinearPath SelectLinearPath(int64_t m, int64_t n, int64_t k, ComputeType type,
                            bool batch_invariant) {
  if (type != ComputeType::kBFloat16 || k % 8 != 0) return LinearPath::kCublasLt;
  if (batch_invariant) return LinearPath::kSkinny;
  const int64_t gemv_rows = n * k <= kSmallProduct ? kGemvMaxBatch : kGemvRows;
  if (m <= gemv_rows && m * k <= kGemvMaxInputs) return LinearPath::kGemv;
  if (m <= kSkinnyMaxBatch) return LinearPath::kSkinny;
  const bool medium = m <= kMediumRows && n % 2 == 0 && n <= kMediumMaxOutputs;
  return medium ? LinearPath::kMedium : LinearPath::kCublasLt;
}

absl::Status CheckBatchInvariance(const CudaDevice& device, bool wanted) {
  if (!wanted || device.hopper) return absl::OkStatus();
  return FailedPrecondition(
      "the batch-invariant mode needs the kernels for compute capability 9.0, device {} has {}.{}: "
      "there products are cublasLt's, whose sums depend on the batch",
      device.name, device.major, device.minor);
}

CudaLinear::CudaLinear(const CudaDevice& device, bool batch_invariant,
                       std::unique_ptr<CublasLt> cublas_lt)
    : hopper_(device.hopper),
      multiprocessors_(device.multiprocessors),
      shared_memory_per_block_(device.shared_memory_per_block),
      batch_invariant_(batch_invariant),
      cublas_lt_(std::move(cublas_lt)) {}

absl::StatusOr<std::unique_ptr<CudaLinear>> CudaLinear::Create(const CudaDevice& device,
                                                               const Options& options) {
  RETURN_IF_ERROR(CheckBatchInvariance(device, options.batch_invariant));
  ASSIGN_OR_RETURN(std::unique_ptr<CublasLt> cublas_lt, CublasLt::Create(options.cublas_lt));
  return std::unique_ptr<CudaLinear>(
      new CudaLinear(device, options.batch_invariant, std::move(cublas_lt)));
}

absl::Status CudaLinear::Prepare(const GemmParams& params, const CudaStream& stream) {
  if (Select(params.m, params.n, params.k, params.type) != LinearPath::kCublasLt) {
    return absl::OkStatus();
  }
  return cublas_lt_->Prepare(params, stream);
}

absl::Status CudaLinear::Run(const GemmParams& params, const CudaStream& stream) {
  switch (Select(params.m, params.n, params.k, params.type)) {
    case LinearPath::kGemv: {
      const int batch = static_cast<int>(params.m);
      ASSIGN_OR_RETURN(const GemvPlan plan, PlanGemv(params.n, params.k, batch, multiprocessors_,
                                                     shared_memory_per_block_));
      return Gemv({.n = params.n,
                   .k = params.k,
                   .batch = batch,
                   .weight = static_cast<const BFloat16*>(params.weight),
                   .x = params.x,
                   .bias = params.bias,
                   .epilogue = params.epilogue,
                   .y = params.y,
                   .next = params.next},
                  plan, stream.get());
    }
    case LinearPath::kSkinny: {
      ASSIGN_OR_RETURN(const SkinnyPlan plan,
                       PlanSkinny(params.m, params.n, params.k, multiprocessors_));
      return SkinnyGemm(params, plan, stream.get());
    }
    case LinearPath::kMedium: {
      ASSIGN_OR_RETURN(const MediumPlan plan, PlanMedium(params.n, params.k, multiprocessors_));
      return MediumGemm(params, plan, stream.get());
    }
    case LinearPath::kCublasLt:
      break;
  }
  return cublas_lt_->Run(params, stream);
}

}  // namespace hanlin
