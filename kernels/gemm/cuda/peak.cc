// See peak.h.
#include "kernels/gemm/cuda/peak.h"

#include <cstddef>

#include "common/cuda/buffer.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/gemm/cuda/linear.h"

namespace hanlin {

absl::StatusOr<double> MeasurePeakFlops(ComputeType type, const CudaDevice& device,
                                        const CudaStream& stream) {
  constexpr int64_t kSize = 8192;
  ASSIGN_OR_RETURN(const auto linear, CudaLinear::Create(device, {}));
  const size_t bytes = kSize * kSize * SizeOf(type);
  ASSIGN_OR_RETURN(const auto memory, DeviceBuffer<std::byte>::Create(3 * bytes));
  RETURN_IF_ERROR(FillRandomBFloat16(memory.data(), 3 * bytes / 2, 0.1f, stream));
  const GemmParams product = {.m = kSize,
                              .n = kSize,
                              .k = kSize,
                              .type = type,
                              .weight = memory.data(),
                              .x = memory.data() + bytes,
                              .y = memory.data() + 2 * bytes};
  RETURN_IF_ERROR(linear->Prepare(product, stream));
  ASSIGN_OR_RETURN(const double milliseconds,
                   MeasureMilliseconds(stream, 5, 4, [&] { return linear->Run(product, stream); }));
  return 2e3 * kSize * kSize * kSize / milliseconds;
}

}  // namespace hanlin
