// TFLOP/s of the three products of each linear layer in training, bf16, at a micro-batch of each
// model, and of all the products of its step together; and what epilogues save.
// Usage: kernels_gemm_cuda_train_benchmark
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "kernels/base/cuda/benchmark_main.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/elementwise/cuda/elementwise.h"
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

// What epilogues would save in a layer's MLP. `dup` holds what the backward pass writes.
absl::Status RunEpilogues(const Model& model, CudaTrainProducts& products,
                          const CudaStream& stream) {
  const int64_t rows = model.tokens, width = model.width, ffn = 4 * width;
  const size_t count = rows * ffn;
  ASSIGN_OR_RETURN(const auto x, DeviceBuffer<BFloat16>::Create(rows * width));
  ASSIGN_OR_RETURN(const auto up, DeviceBuffer<BFloat16>::Create(count));
  ASSIGN_OR_RETURN(const auto act, DeviceBuffer<BFloat16>::Create(count));
  ASSIGN_OR_RETURN(const auto dup, DeviceBuffer<BFloat16>::Create(count));
  ASSIGN_OR_RETURN(const auto weight, DeviceBuffer<BFloat16>::Create(ffn * width));
  ASSIGN_OR_RETURN(const auto sums, DeviceBuffer<float>::Create(ffn));
  const size_t bytes = CudaColumnSumsBytes(ComputeType::kBFloat16, rows, ffn);
  ASSIGN_OR_RETURN(const auto workspace, DeviceBuffer<std::byte>::Create(bytes));
  RETURN_IF_ERROR(FillRandomBFloat16(x.data(), x.size(), 1.0f, stream));
  RETURN_IF_ERROR(FillRandomBFloat16(weight.data(), weight.size(), 0.03f, stream));
  const void* const bias = x.data();
  constexpr ComputeType kType = ComputeType::kBFloat16;
  const CudaTrainProducts::Shape raise = {kType, rows, ffn, width},
                                 lower = {kType, rows, width, ffn};
  const auto report = [&](std::string_view what, const auto& work) {
    const auto once = MeasureMilliseconds(stream, 5, 10, work);
    if (!once.ok()) {
      fmt::print("  {}: {}\n", what, Message(once.status()));
      return;
    }
    fmt::print("  {}: {:.3f} ms, {:.2f} ms a step\n", what, *once, *once * model.layers);
    std::fflush(stdout);
  };
  fmt::print("{}: the MLP of a layer\n", model.name);
  report("up with bias, then GELU", [&]() -> absl::Status {
    RETURN_IF_ERROR(products.Forward(raise, x.data(), weight.data(), bias, up.data(), stream));
    return CudaGelu(GeluForm::kTanh, kType, up.data(), count, act.data(), stream.get());
  });
  ASSIGN_OR_RETURN(const auto separate, act.ToHost());
  report("up with GELU_AUX_BIAS", [&] {
    return products.ForwardGelu(raise, x.data(), weight.data(), bias, up.data(), act.data(),
                                stream);
  });
  ASSIGN_OR_RETURN(const auto fused, act.ToHost());
  size_t different = 0;
  for (size_t i = 0; i < count; ++i) {
    different += std::memcmp(&separate[i], &fused[i], sizeof(BFloat16)) != 0;
  }
  fmt::print("  {} of {} activations differ between the two\n", different, count);
  report("down's input, then GELU backward with sums", [&]() -> absl::Status {
    RETURN_IF_ERROR(products.Input(lower, x.data(), weight.data(), dup.data(), stream));
    return CudaGeluBackwardSums(GeluForm::kTanh, kType, up.data(), dup.data(), rows, ffn,
                                dup.data(), sums.data(), workspace.data(), stream.get());
  });
  report("down's input with DGELU, then column sums", [&]() -> absl::Status {
    RETURN_IF_ERROR(
        products.InputGelu(lower, x.data(), weight.data(), up.data(), dup.data(), stream));
    return CudaAddColumnSums(kType, dup.data(), rows, ffn, sums.data(), workspace.data(),
                             stream.get());
  });
  return absl::OkStatus();
}

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

  double flops = 0, milliseconds = 0, first = 0;  // of the step; `first`: by first algorithms
  const auto layer = [&](std::string_view name, int64_t rows, int64_t outputs, int64_t inputs,
                         double times) -> absl::Status {
    const CudaTrainProducts::Shape shape = {ComputeType::kBFloat16, rows, outputs, inputs};
    const double product = 2.0 * rows * outputs * inputs;
    fmt::print("{} {:7} {:6} x {:5} -> {:5}, TFLOP/s of first -> chosen algorithm (equal bits):",
               model.name, name, rows, inputs, outputs);
    const auto report = [&](std::string_view what, const auto& work) -> absl::Status {
      ASSIGN_OR_RETURN(const double once, MeasureMilliseconds(stream, 5, 10, work));
      const EqualBitsChoice& choice = products.last_choice();
      const double before = choice.equal > 0 ? choice.first : once;
      fmt::print("  {} {:.1f} -> {:.1f} ({}/{})", what, product / before / 1e9,
                 product / once / 1e9, choice.equal, choice.candidates);
      first += before * times;
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
    fmt::print("\n");
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
  fmt::print(
      "{}: the products of a step of {} tokens take {:.2f} ms, {:.1f} TFLOP/s; by first "
      "algorithms {:.2f} ms\n",
      model.name, tokens, milliseconds, flops / milliseconds / 1e9, first);
  return RunEpilogues(model, products, stream);
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

int main() { return hanlin::ExitCode(hanlin::Main()); }
