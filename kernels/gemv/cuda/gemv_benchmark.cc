// Prints GB/s of the decode product as the weight chain of a whole decode step (every linear layer
// of a model of the family with random weights, no attention) in one graph, and the share of the
// read rate measured in the same run. Usage: kernels_gemv_cuda_benchmark
#include <fmt/format.h>

#include <cstdio>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "kernels/base/cuda/benchmark_main.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/gemv/cuda/gemv.h"

namespace hanlin {
namespace {

struct Model {
  const char* name;
  int layers;
  int64_t width;
};

struct Memory {
  DeviceBuffer<BFloat16> weights;
  DeviceBuffer<float> x, vectors, logits;
  DeviceBuffer<BFloat16> qkv, hidden;
};

constexpr int64_t kVocabulary = 51200;

absl::StatusOr<Memory> Allocate(const Model& model, int batch, const CudaStream& stream) {
  const int64_t k = model.width;
  const size_t count = 12 * k * k * model.layers + kVocabulary * k;
  Memory m;
  ASSIGN_OR_RETURN(m.weights, DeviceBuffer<BFloat16>::Create(count));
  ASSIGN_OR_RETURN(m.x, DeviceBuffer<float>::Create(batch * k));
  ASSIGN_OR_RETURN(m.vectors, DeviceBuffer<float>::Create(6 * k));
  ASSIGN_OR_RETURN(m.logits, DeviceBuffer<float>::Create(batch * kVocabulary));
  ASSIGN_OR_RETURN(m.qkv, DeviceBuffer<BFloat16>::Create(batch * 3 * k));
  ASSIGN_OR_RETURN(m.hidden, DeviceBuffer<BFloat16>::Create(batch * 4 * k));
  RETURN_IF_ERROR(FillRandomBFloat16(m.weights.data(), count, 0.03f, stream));
  std::vector<float> ones(6 * k);
  for (int64_t i = 0; i < k; ++i) ones[i] = 1.0f;
  RETURN_IF_ERROR(m.vectors.CopyFrom(ones));
  std::vector<float> x(batch * k);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) - 8.0f;
  RETURN_IF_ERROR(m.x.CopyFrom(x));
  RETURN_IF_ERROR(stream.Synchronize());
  return m;
}

// The linear layers of one step: qkv, out, up, down per layer, then the logits.
absl::Status Step(const Model& model, int batch, const Memory& m, const CudaDevice& device,
                  const CudaStream& stream) {
  const int64_t k = model.width;
  const float* norm_bias = m.vectors.data() + k;
  const float* bias = m.vectors.data() + 2 * k;
  const auto run = [&](const BFloat16* w, int64_t n, int64_t inputs, const void* x, GemvInput input,
                       LinearEpilogue epilogue, void* y) -> absl::Status {
    ASSIGN_OR_RETURN(const GemvPlan plan, PlanGemv(n, inputs, batch, device.multiprocessors,
                                                   device.shared_memory_per_block));
    return Gemv({.n = n,
                 .k = inputs,
                 .batch = batch,
                 .weight = w,
                 .input = input,
                 .x = x,
                 .norm_weight = m.vectors.data(),
                 .norm_bias = norm_bias,
                 .bias = n == kVocabulary ? nullptr : bias,
                 .epilogue = epilogue,
                 .y = y},
                plan, stream.get());
  };
  const BFloat16* w = m.weights.data();
  for (int layer = 0; layer < model.layers; ++layer, w += 12 * k * k) {
    RETURN_IF_ERROR(
        run(w, 3 * k, k, m.x.data(), GemvInput::kLayerNorm, LinearEpilogue::kNone, m.qkv.data()));
    RETURN_IF_ERROR(run(w + 3 * k * k, k, k, m.qkv.data(), GemvInput::kBFloat16,
                        LinearEpilogue::kResidual, m.x.data()));
    RETURN_IF_ERROR(run(w + 4 * k * k, 4 * k, k, m.x.data(), GemvInput::kLayerNorm,
                        LinearEpilogue::kGeluTanh, m.hidden.data()));
    RETURN_IF_ERROR(run(w + 8 * k * k, k, 4 * k, m.hidden.data(), GemvInput::kBFloat16,
                        LinearEpilogue::kResidual, m.x.data()));
  }
  return run(w, kVocabulary, k, m.x.data(), GemvInput::kLayerNorm, LinearEpilogue::kFloat32,
             m.logits.data());
}

absl::Status Main() {
  ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(0));
  ASSIGN_OR_RETURN(const CudaStream stream, CudaStream::Create());
  ASSIGN_OR_RETURN(const double read_rate, MeasureReadRate(stream));
  fmt::print("{}: read rate {:.1f} GB/s\n", device.name, read_rate / 1e9);
  for (const Model& model : {Model{"base", 12, 768}, Model{"1.3B", 24, 2048},
                             Model{"2.7B", 32, 2560}, Model{"13B", 40, 5120}}) {
    for (int batch = 1; batch <= kGemvMaxBatch; ++batch) {
      ASSIGN_OR_RETURN(const Memory memory, Allocate(model, batch, stream));
      ASSIGN_OR_RETURN(const CudaGraph graph, CudaGraph::Capture(stream, [&] {
                         return Step(model, batch, memory, device, stream);
                       }));
      ASSIGN_OR_RETURN(const double milliseconds,
                       MeasureMilliseconds(stream, 7, 16, [&] { return graph.Launch(stream); }));
      const double bytes = static_cast<double>(memory.weights.size()) * 2;
      fmt::print("weight chain {} batch {}: {:.4f} ms, {:.1f} GB/s, {:.1f} % of the read rate\n",
                 model.name, batch, milliseconds, bytes / milliseconds / 1e6,
                 bytes / milliseconds / 1e-3 / read_rate * 100);
      std::fflush(stdout);
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace hanlin

int main() { return hanlin::ExitCode(hanlin::Main()); }
