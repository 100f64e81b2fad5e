// Checks before the launches.
#include "kernels/elementwise/cuda/elementwise.h"

#include "common/cuda/status.h"
#include "kernels/elementwise/cuda/column_sums_launch.h"

namespace hanlin {
namespace {

absl::Status CheckCount(int64_t count) {
  if (count > 0 && count % 8 == 0) return absl::OkStatus();
  return InvalidArgument("{} elements, want a multiple of 8", count);
}

absl::Status AddParts(ComputeType type, int64_t rows, int64_t width, const float* partials,
                      float* sums, cudaStream_t stream) {
  return CudaStatus(LaunchAddParts(partials, ColumnSumParts(type, rows, width), width, sums,
                                   nullptr, nullptr, stream),
                    "launch of the sums' second stage");
}

}  // namespace

absl::Status CudaGelu(GeluForm form, ComputeType type, const void* x, int64_t count, void* y,
                      cudaStream_t stream) {
  RETURN_IF_ERROR(CheckCount(count));
  return CudaStatus(LaunchGelu(form == GeluForm::kErf, type, x, count, y, stream),
                    "launch of GELU");
}

absl::Status CudaDropout(const DropoutParams& dropout, ComputeType type, const void* x,
                         int64_t rows, int64_t width, void* y, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckCount(width));
  return CudaStatus(LaunchDropout(dropout, type, x, rows, width, y, stream), "launch of dropout");
}

absl::Status CudaAddColumnSums(ComputeType type, const void* x, int64_t rows, int64_t width,
                               float* sums, void* workspace, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckCount(width));
  auto* const partials = static_cast<float*>(workspace);
  RETURN_IF_CUDA_ERROR(LaunchColumnSums(type, x, rows, width, partials, stream));
  return AddParts(type, rows, width, partials, sums, stream);
}

absl::Status CudaGeluBackwardSums(GeluForm form, ComputeType type, const void* x, const void* dy,
                                  int64_t rows, int64_t width, void* dx, float* sums,
                                  void* workspace, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckCount(width));
  auto* const partials = static_cast<float*>(workspace);
  RETURN_IF_CUDA_ERROR(LaunchGeluBackwardSums(form == GeluForm::kErf, type, x, dy, rows, width, dx,
                                              partials, stream));
  return AddParts(type, rows, width, partials, sums, stream);
}

absl::Status CudaDropoutSums(const DropoutParams& dropout, ComputeType type, const void* x,
                             int64_t rows, int64_t width, void* y, float* sums, void* workspace,
                             cudaStream_t stream) {
  RETURN_IF_ERROR(CheckCount(width));
  auto* const partials = static_cast<float*>(workspace);
  RETURN_IF_CUDA_ERROR(LaunchDropoutSums(dropout, type, x, rows, width, y, partials, stream));
  return AddParts(type, rows, width, partials, sums, stream);
}

size_t CudaColumnSumsBytes(ComputeType type, int64_t rows, int64_t width) {
  return static_cast<size_t>(ColumnSumParts(type, rows, width)) * width * sizeof(float);
}

absl::Status CudaWiden(const void* x, int64_t count, float* y, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckCount(count));
  return CudaStatus(LaunchWiden(x, count, y, stream), "launch of a conversion");
}

absl::Status CudaNarrow(const float* x, int64_t count, void* y, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckCount(count));
  return CudaStatus(LaunchNarrow(x, count, y, stream), "launch of a conversion");
}

}  // namespace hanlin
