// Timing of the read kernel.
#include "kernels/base/cuda/read_rate.h"

#include <algorithm>
#include <cstdint>

#include "common/cuda/buffer.h"
#include "common/cuda/status.h"
#include "kernels/base/cuda/read_rate_launch.h"

namespace hanlin {

absl::StatusOr<double> MeasureReadRate(const CudaStream& stream) {
  constexpr size_t kBytes = size_t{4} << 30;
  ASSIGN_OR_RETURN(DeviceBuffer<uint8_t> data, DeviceBuffer<uint8_t>::Create(kBytes));
  ASSIGN_OR_RETURN(DeviceBuffer<unsigned> check, DeviceBuffer<unsigned>::Create(1));
  RETURN_IF_ERROR(data.Clear());
  double best = 0.0;
  for (int i = 0; i < 6; ++i) {
    ASSIGN_OR_RETURN(const double milliseconds, MeasureMilliseconds(stream, 1, 1, [&] {
                       return CudaStatus(
                           LaunchRead(data.data(), kBytes, check.data(), stream.get()), "read");
                     }));
    best = std::max(best, kBytes / (milliseconds * 1e-3));
  }
  return best;
}

absl::Status FillRandomBFloat16(void* values, size_t count, float scale, const CudaStream& stream) {
  return CudaStatus(LaunchFillBFloat16(values, count, scale, stream.get()), "fill");
}

}  // namespace hanlin
