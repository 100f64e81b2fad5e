// TFLOP/s of causal attention for training at the shapes of the model family, forward and backward,
// and the share of what cublasLt's products of 8192 reach in the same run. Counted are the products
// of the half of the scores that is seen, 2 forward and 5 backward (the kernels compute 7).
// Usage: kernels_attention_cuda_causal_benchmark
#include <fmt/format.h>

#include <cmath>
#include <cstdio>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "kernels/attention/cuda/causal_attention.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/gemm/cuda/cublas_lt.h"

namespace hanlin {
namespace {

constexpr int64_t kPeakSize = 8192;

struct Shape {
  const char* name;
  int64_t sequences, length, heads, head_dim;
};
constexpr Shape kShapes[] = {{"hanlin-poet", 256, 256, 4, 80}, {"124M", 64, 1024, 12, 64},
                             {"1.3B", 8, 2048, 32, 64},        {"2.7B", 8, 1024, 32, 80},
                             {"2.7B", 4, 2048, 32, 80},        {"13B", 4, 2048, 40, 128}};

absl::StatusOr<double> MeasurePeak(const CudaStream& stream) {
  ASSIGN_OR_RETURN(const auto cublas_lt, CublasLt::Create({}));
  constexpr int64_t kCount = kPeakSize * kPeakSize;
  ASSIGN_OR_RETURN(const auto x, DeviceBuffer<BFloat16>::Create(kCount));
  ASSIGN_OR_RETURN(const auto weight, DeviceBuffer<BFloat16>::Create(kCount));
  ASSIGN_OR_RETURN(const auto y, DeviceBuffer<BFloat16>::Create(kCount));
  RETURN_IF_ERROR(FillRandomBFloat16(x.data(), kCount, 1.0f, stream));
  RETURN_IF_ERROR(FillRandomBFloat16(weight.data(), kCount, 1.0f, stream));
  const GemmParams product = {.m = kPeakSize,
                              .n = kPeakSize,
                              .k = kPeakSize,
                              .weight = weight.data(),
                              .x = x.data(),
                              .y = y.data()};
  RETURN_IF_ERROR(cublas_lt->Prepare(product, stream));
  ASSIGN_OR_RETURN(const double milliseconds, MeasureMilliseconds(stream, 5, 10, [&] {
                     return cublas_lt->Run(product, stream);
                   }));
  return 2e3 * kCount * kPeakSize / milliseconds;
}

absl::Status Benchmark(const Shape& s, float dropout, double peak, const CudaStream& stream) {
  const int64_t tokens = s.sequences * s.length, width = s.heads * s.head_dim;
  ASSIGN_OR_RETURN(const auto qkv, DeviceBuffer<BFloat16>::Create(tokens * 3 * width));
  ASSIGN_OR_RETURN(const auto dqkv, DeviceBuffer<BFloat16>::Create(tokens * 3 * width));
  ASSIGN_OR_RETURN(const auto out, DeviceBuffer<BFloat16>::Create(tokens * width));
  ASSIGN_OR_RETURN(const auto dout, DeviceBuffer<BFloat16>::Create(tokens * width));
  ASSIGN_OR_RETURN(const auto log_sum, DeviceBuffer<float>::Create(tokens * s.heads));
  ASSIGN_OR_RETURN(const auto dbias, DeviceBuffer<float>::Create(3 * width));
  RETURN_IF_ERROR(FillRandomBFloat16(qkv.data(), qkv.size(), 1.0f, stream));
  RETURN_IF_ERROR(FillRandomBFloat16(dout.data(), dout.size(), 1.0f, stream));
  const CudaCausalAttentionParams params = {
      .sequences = s.sequences,
      .length = s.length,
      .heads = s.heads,
      .head_dim = s.head_dim,
      .qkv = qkv.data(),
      .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
      .dropout = {.rate = dropout, .seed = 1},
      .log_sum = log_sum.data()};
  ASSIGN_OR_RETURN(const auto workspace,
                   DeviceBuffer<uint8_t>::Create(CausalAttentionWorkspaceBytes(params)));
  ASSIGN_OR_RETURN(const double forward, MeasureMilliseconds(stream, 5, 10, [&] {
                     return CudaCausalAttention(params, out.data(), stream.get());
                   }));
  ASSIGN_OR_RETURN(const double backward, MeasureMilliseconds(stream, 5, 10, [&] {
                     return CudaCausalAttentionBackward(
                         params,
                         {out.data(), dout.data(), dqkv.data(), dbias.data(), workspace.data()},
                         stream.get());
                   }));
  const double operations = 2.0 * tokens * s.length * width * 1e3;  // forward, by milliseconds
  fmt::print(
      "{} {} x {}, head size {}, dropout {:.1f}: forward {:.3f} ms, {:.0f} TFLOP/s, {:.0f} % of "
      "the peak; backward {:.3f} ms, {:.0f} TFLOP/s, {:.0f} %\n",
      s.name, s.sequences, s.length, s.head_dim, dropout, forward, operations / forward / 1e12,
      operations / forward / peak * 100, backward, 2.5 * operations / backward / 1e12,
      2.5 * operations / backward / peak * 100);
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status Main() {
  ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(0));
  ASSIGN_OR_RETURN(const CudaStream stream, CudaStream::Create());
  ASSIGN_OR_RETURN(const double peak, MeasurePeak(stream));
  fmt::print("{}: {:.0f} TFLOP/s in products of {}\n", device.name, peak / 1e12, kPeakSize);
  constexpr int kWarmUp = 20;  // what comes first would be timed at the clock of an idle card
  for (int i = 0; i < kWarmUp; ++i) RETURN_IF_ERROR(MeasurePeak(stream).status());
  for (const float dropout : {0.0f, 0.1f}) {
    for (const Shape& shape : kShapes) RETURN_IF_ERROR(Benchmark(shape, dropout, peak, stream));
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
