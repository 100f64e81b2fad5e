// Prints microseconds of one LayerNorm (fp32 in, bf16 out) in a graph of 100 launches, as a decode
// step chains them. Usage: kernels_norm_cuda_benchmark
#include <fmt/format.h>

#include <cstdio>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "common/cuda/stream.h"
#include "kernels/base/cuda/benchmark_main.h"
#include "kernels/norm/cuda/layer_norm.h"

namespace hanlin {
namespace {

absl::StatusOr<double> Microseconds(const CudaStream& stream, int64_t rows, int64_t width,
                                    bool residual) {
  constexpr int kLaunches = 100;
  ASSIGN_OR_RETURN(const auto x, DeviceBuffer<float>::Create(rows * width));
  ASSIGN_OR_RETURN(const auto delta, DeviceBuffer<BFloat16>::Create(rows * width));
  ASSIGN_OR_RETURN(const auto y, DeviceBuffer<BFloat16>::Create(rows * width));
  ASSIGN_OR_RETURN(const auto vectors, DeviceBuffer<float>::Create(3 * width));
  ASSIGN_OR_RETURN(
      const CudaGraph graph, CudaGraph::Capture(stream, [&]() -> absl::Status {
        for (int i = 0; i < kLaunches; ++i) {
          RETURN_IF_ERROR(CudaLayerNorm({.rows = rows,
                                         .width = width,
                                         .x = x.data(),
                                         .delta = residual ? delta.data() : nullptr,
                                         .delta_type = ComputeType::kBFloat16,
                                         .delta_bias = residual ? vectors.data() : nullptr,
                                         .weight = vectors.data() + width,
                                         .bias = vectors.data() + 2 * width,
                                         .y = y.data()},
                                        stream.get()));
        }
        return absl::OkStatus();
      }));
  ASSIGN_OR_RETURN(const double milliseconds,
                   MeasureMilliseconds(stream, 7, 4, [&] { return graph.Launch(stream); }));
  return milliseconds / kLaunches * 1000;
}

absl::Status Main() {
  ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(0));
  ASSIGN_OR_RETURN(const CudaStream stream, CudaStream::Create());
  fmt::print("{}: microseconds a launch, LayerNorm / with the residual step\n", device.name);
  for (int64_t width : {768, 2048, 2560, 5120, 7168}) {
    for (int64_t rows : {1, 8, 32, 128, 2048}) {
      ASSIGN_OR_RETURN(const double plain, Microseconds(stream, rows, width, false));
      ASSIGN_OR_RETURN(const double residual, Microseconds(stream, rows, width, true));
      fmt::print("width {:5} rows {:5}: {:6.2f} / {:6.2f} us\n", width, rows, plain, residual);
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace hanlin

int main() { return hanlin::ExitCode(hanlin::Main()); }
