// TFLOP/s of the three products of each linear layer in training, bf16, at a micro-batch of each
// model, and of all the products of its step together.
// Usage: kernels_gemm_cuda_train_benchmark
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string_view>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/gemm/cuda/peak.h"
#include "kernels/gemm/cuda/train_products.h"

namespace hanlin {
namespace {

constexpr int64_t kLossRows = 4096;  // of logits at a time

struct Model {
  std::string_view name;
  int layers;
  int64_t width;
  int64_t tokens;
};

constexpr Model kModels[] = {
    {"124M", 12, 768, 65536}, {"1.3B", 24, 2048, 16384}, {"2.7B", 32, 2560, 8192}};
constexpr int64_t kVocabulary = 51200;

absl::Status RunModel(const Model& model, CudaTrainProducts& products, const CudaStream& stream) {
  const int64_t width = model.width;
  const int64_t most = std::max(model.tokens * 4 * width, kLossRows * kVocabulary);
  ASSIGN_OR_RETURN(const auto wide, DeviceBuffer<BFloat16>::Create(most));
  ASSIGN_OR_RETURN(const auto narrow, DeviceBuffer<BFloat16>::Create(model.tokens * 4 * width));
  const int64_t matrix = std::max(4 * width * width, kVocabulary * width);
  ASSIGN_OR_RETURN(const auto weight, DeviceBuffer<BFloat16>::Create(matrix));
  ASSIGN_OR_RETURN(const auto gradient, DeviceBuffer<float>::Create(matrix));
  RETURN_IF_ERROR(FillRandomBFloat16(wide.data(), wide.size(), 1.0f, stream));
  RETURN_IF_ERROR(FillRandomBFloat16(narrow.data(), narrow.size(), 1.0f, stream));
  RETURN_IF_ERROR(FillRandomBFloat16(weight.data(), weight.size(), 0.03f, stream));

  double flops = 0, milliseconds = 0;  // of the step
  const auto layer = [&](std::string_view name, int64_t rows, int64_t outputs, int64_t inputs,
                         double times) -> absl::Status {
    const CudaTrainProducts::Shape shape = {ComputeType::kBFloat16, rows, outputs, inputs};
    const double product = 2.0 * rows * outputs * inputs;
    fmt::print("{} {:7} {:6} x {:5} -> {:5}:", model.name, name, rows, inputs, outputs);
    const auto report = [&](std::string_view what, const auto& work) -> absl::Status {
      ASSIGN_OR_RETURN(const double once, MeasureMilliseconds(stream, 5, 10, work));
      fmt::print(" {} {:6.1f}", what, product / once / 1e9);
      flops += product * times;
      milliseconds += once * times;
      return absl::OkStatus();
    };
    RETURN_IF_ERROR(report("forward", [&] {
      return products.Forward(shape, narrow.data(), weight.data(), nullptr, wide.data(), stream);
    }));
    RETURN_IF_ERROR(report("input", [&] {
      return products.Input(shape, wide.data(), weight.data(), narrow.data(), stream);
    }));
    RETURN_IF_ERROR(report("weight", [&] {
      return products.Weight(shape, wide.data(), narrow.data(), gradient.data(), false, stream);
    }));
    fmt::print(" TFLOP/s\n");
    std::fflush(stdout);
    return absl::OkStatus();
  };
  const int64_t tokens = model.tokens;
  const double layers = model.layers;
  RETURN_IF_ERROR(layer("qkv", tokens, 3 * width, width, layers));
  RETURN_IF_ERROR(layer("out", tokens, width, width, layers));
  RETURN_IF_ERROR(layer("up", tokens, 4 * width, width, layers));
  RETURN_IF_ERROR(layer("down", tokens, width, 4 * width, layers));
  RETURN_IF_ERROR(
      layer("logits", kLossRows, kVocabulary, width, static_cast<double>(tokens) / kLossRows));
  fmt::print("{}: the products of a step of {} tokens take {:.2f} ms, {:.1f} TFLOP/s\n", model.name,
             tokens, milliseconds, flops / milliseconds / 1e9);
  return absl::OkStatus();
}

absl::Status Main() {
  ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(0));
  ASSIGN_OR_RETURN(const CudaStream stream, CudaStream::Create());
  ASSIGN_OR_RETURN(const auto products, CudaTrainProducts::Create());
  ASSIGN_OR_RETURN(const double peak, MeasurePeakFlops(ComputeType::kBFloat16, device, stream));
  fmt::print("{}: a large product reaches {:.1f} TFLOP/s\n", device.name, peak / 1e12);
  for (const Model& model : kModels) RETURN_IF_ERROR(RunModel(model, *products, stream));
  return absl::OkStatus();
}

}  // namespace
}  // namespace hanlin

int main() {
  const absl::Status status = hanlin::Main();
  if (!status.ok()) fmt::print(stderr, "{}\n", hanlin::Message(status));
  return status.ok() ? 0 : 1;
}
