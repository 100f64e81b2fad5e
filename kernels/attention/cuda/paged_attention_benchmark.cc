// Prints what attention costs: in a decode step's chain of kernels (QKV product, attention, output
// product, against the chain without it), as a share of the read rate for large batches, and the
// TFLOP/s of prefill. Usage: kernels_attention_cuda_benchmark
#include <fmt/format.h>

#include <cstdio>
#include <numeric>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "kernels/attention/cuda/paged_attention.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/gemv/cuda/gemv.h"

namespace hanlin {
namespace {

struct Model {
  const char* name;
  int layers;
  int heads;
  int head_dim;
  int64_t width() const { return static_cast<int64_t>(heads) * head_dim; }
};
constexpr Model kBase{"base", 12, 12, 64}, k1_3B{"1.3B", 24, 32, 64}, k2_7B{"2.7B", 32, 32, 80},
    k13B{"13B", 40, 40, 128};

// The caches of all layers, and rows of activations.
struct Memory {
  DeviceBuffer<BFloat16> cache, qkv, out;
  DeviceBuffer<int32_t> tables, context;
  int64_t table_stride = 0;
  int64_t layer_elements = 0;

  PagedKv Layer(const Model& model, int layer) const {
    return {ComputeType::kBFloat16, model.heads,
            model.head_dim,         cache.data() + layer * layer_elements,
            tables.data(),          table_stride};
  }
};

absl::StatusOr<Memory> Allocate(const Model& model, int sequences, int tokens, int rows,
                                const CudaStream& stream) {
  Memory m;
  m.table_stride = tokens / kPagedKvTokens + 1;
  const int64_t blocks = sequences * m.table_stride;
  m.layer_elements = blocks * 2 * kPagedKvTokens * model.width();
  ASSIGN_OR_RETURN(m.cache, DeviceBuffer<BFloat16>::Create(model.layers * m.layer_elements));
  ASSIGN_OR_RETURN(m.qkv, DeviceBuffer<BFloat16>::Create(rows * 3 * model.width()));
  ASSIGN_OR_RETURN(m.out, DeviceBuffer<BFloat16>::Create(rows * model.width()));
  RETURN_IF_ERROR(FillRandomBFloat16(m.cache.data(), m.cache.size(), 1.0f, stream));
  RETURN_IF_ERROR(FillRandomBFloat16(m.qkv.data(), m.qkv.size(), 1.0f, stream));
  std::vector<int32_t> tables(blocks);
  std::iota(tables.begin(), tables.end(), 0);
  for (int64_t i = 0; i < blocks; ++i) std::swap(tables[i], tables[i * 7919 % blocks]);
  ASSIGN_OR_RETURN(m.tables, DeviceBuffer<int32_t>::From(tables));
  ASSIGN_OR_RETURN(m.context,
                   DeviceBuffer<int32_t>::From(std::vector<int32_t>(sequences, tokens - 1)));
  RETURN_IF_ERROR(stream.Synchronize());
  return m;
}

absl::StatusOr<double> MeasureGraph(const CudaStream& stream,
                                    const std::function<absl::Status()>& record) {
  ASSIGN_OR_RETURN(const CudaGraph graph, CudaGraph::Capture(stream, record));
  return MeasureMilliseconds(stream, 7, 16, [&] { return graph.Launch(stream); });
}

absl::Status Attend(const Model& model, const Memory& m, int layer, int batch,
                    const CudaDevice& device, const CudaStream& stream) {
  ASSIGN_OR_RETURN(
      const DecodeAttentionPlan plan,
      PlanDecodeAttention(ComputeType::kBFloat16, batch, model.heads, model.head_dim, device));
  return DecodeAttention({.kv = m.Layer(model, layer),
                          .batch = batch,
                          .context = m.context.data(),
                          .qkv = m.qkv.data(),
                          .out = m.out.data()},
                         plan, stream.get());
}

// QKV product, attention, output product in every layer, with their own weights and caches.
absl::Status BenchmarkChain(const Model& model, int batch, int context, const CudaDevice& device,
                            const CudaStream& stream) {
  const int64_t k = model.width();
  ASSIGN_OR_RETURN(const Memory m, Allocate(model, batch, context, batch, stream));
  ASSIGN_OR_RETURN(const auto weights, DeviceBuffer<BFloat16>::Create(4 * k * k * model.layers));
  ASSIGN_OR_RETURN(auto x, DeviceBuffer<float>::From(std::vector<float>(batch * k, 1.0f)));
  ASSIGN_OR_RETURN(const auto ones, DeviceBuffer<float>::From(std::vector<float>(3 * k, 1.0f)));
  RETURN_IF_ERROR(FillRandomBFloat16(weights.data(), weights.size(), 0.01f, stream));
  ASSIGN_OR_RETURN(const GemvPlan qkv_plan, PlanGemv(3 * k, k, batch, device.multiprocessors,
                                                     device.shared_memory_per_block));
  ASSIGN_OR_RETURN(const GemvPlan out_plan,
                   PlanGemv(k, k, batch, device.multiprocessors, device.shared_memory_per_block));
  const auto chain = [&](bool attends) -> absl::Status {
    for (int layer = 0; layer < model.layers; ++layer) {
      const BFloat16* w = weights.data() + 4 * k * k * layer;
      const GemvParams qkv{.n = 3 * k,
                           .k = k,
                           .batch = batch,
                           .weight = w,
                           .input = GemvInput::kLayerNorm,
                           .x = x.data(),
                           .norm_weight = ones.data(),
                           .norm_bias = ones.data(),
                           .bias = ones.data(),
                           .y = m.qkv.data()};
      RETURN_IF_ERROR(Gemv(qkv, qkv_plan, stream.get()));
      if (attends) RETURN_IF_ERROR(Attend(model, m, layer, batch, device, stream));
      const GemvParams out{.n = k,
                           .k = k,
                           .batch = batch,
                           .weight = w + 3 * k * k,
                           .x = m.out.data(),
                           .bias = ones.data(),
                           .epilogue = LinearEpilogue::kResidual,
                           .y = x.data()};
      RETURN_IF_ERROR(Gemv(out, out_plan, stream.get()));
    }
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(const double without, MeasureGraph(stream, [&] { return chain(false); }));
  ASSIGN_OR_RETURN(const double with, MeasureGraph(stream, [&] { return chain(true); }));
  fmt::print(
      "decode chain {} batch {} context {}: {:.2f} us a layer without attention, {:.2f} us with, "
      "attention costs {:.2f} us\n",
      model.name, batch, context, without * 1e3 / model.layers, with * 1e3 / model.layers,
      (with - without) * 1e3 / model.layers);
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status BenchmarkDecode(Model model, int batch, int context, double read_rate,
                             const CudaDevice& device, const CudaStream& stream) {
  model.layers = 8;  // of the model's; more than L2 holds
  ASSIGN_OR_RETURN(const Memory m, Allocate(model, batch, context, batch, stream));
  ASSIGN_OR_RETURN(const double milliseconds, MeasureGraph(stream, [&]() -> absl::Status {
                     for (int layer = 0; layer < model.layers; ++layer) {
                       RETURN_IF_ERROR(Attend(model, m, layer, batch, device, stream));
                     }
                     return absl::OkStatus();
                   }));
  const double rate = 4.0 * batch * context * model.width() * model.layers / milliseconds * 1e3;
  fmt::print(
      "decode {} batch {} context {}: {:.2f} us a layer, {:.0f} GB/s, {:.1f} % of the read "
      "rate\n",
      model.name, batch, context, milliseconds * 1e3 / model.layers, rate / 1e9,
      rate / read_rate * 100);
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status BenchmarkPrefill(Model model, int sequences, int tokens, const CudaStream& stream) {
  model.layers = 1;
  ASSIGN_OR_RETURN(const Memory m, Allocate(model, sequences, tokens, sequences * tokens, stream));
  std::vector<PrefillSegment> segments;
  segments.reserve(sequences);
  for (int s = 0; s < sequences; ++s) segments.push_back({s * tokens, tokens, 0, s});
  ASSIGN_OR_RETURN(const auto on_device, DeviceBuffer<PrefillSegment>::From(segments));
  const PrefillAttentionParams params{.kv = m.Layer(model, 0),
                                      .num_segments = sequences,
                                      .max_tokens = tokens,
                                      .tokens = sequences * tokens,
                                      .segments = on_device.data(),
                                      .qkv = m.qkv.data(),
                                      .out = m.out.data()};
  ASSIGN_OR_RETURN(const double attend, MeasureMilliseconds(stream, 5, 20, [&] {
                     return PrefillAttention(params, stream.get());
                   }));
  const double operations = 2.0 * sequences * tokens * tokens * model.width();
  fmt::print("prefill {} {} x {}: {:.1f} us a layer with K and V stored, {:.0f} TFLOP/s\n",
             model.name, sequences, tokens, attend * 1e3, operations / attend / 1e9);
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status Main() {
  ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(0));
  ASSIGN_OR_RETURN(const CudaStream stream, CudaStream::Create());
  ASSIGN_OR_RETURN(const double read_rate, MeasureReadRate(stream));
  fmt::print("{}: read rate {:.1f} GB/s\n", device.name, read_rate / 1e9);
  for (const Model& model : {kBase, k1_3B, k2_7B, k13B}) {
    for (int batch : {1, 4}) {
      RETURN_IF_ERROR(BenchmarkChain(model, batch, 256, device, stream));
    }
  }
  RETURN_IF_ERROR(BenchmarkChain(k2_7B, 1, 2048, device, stream));
  for (const Model& model : {k1_3B, k2_7B, k13B}) {
    for (int batch : {8, 32, 128}) {
      RETURN_IF_ERROR(BenchmarkDecode(model, batch, 512, read_rate, device, stream));
    }
  }
  for (const Model& model : {k1_3B, k2_7B, k13B}) {
    RETURN_IF_ERROR(BenchmarkPrefill(model, 1, 2048, stream));
    RETURN_IF_ERROR(BenchmarkPrefill(model, 8, 512, stream));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace hanlin

int main() {
  const absl::Status status = hanlin::Main();
  if (!status.ok()) fmt::print(stderr, "{}\n", hanlin::Message(status));
  return status.ok() ? 0 : 1;
}
