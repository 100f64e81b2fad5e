// Times the linear layers of a whole step (every layer of a model of the family with random
// weights, bias, GELU and residual fused; no norm, attention or sampling) in one graph. Decode:
// milliseconds and the share of the read rate measured in the same run, ours beside cublasLt.
// Prefill: TFLOP/s of cublasLt. Usage: kernels_gemm_cuda_benchmark [model ...]
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "kernels/base/cuda/benchmark_main.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/gemm/cuda/cublas_lt.h"
#include "kernels/gemm/cuda/linear.h"
#include "kernels/gemm/cuda/medium.h"
#include "kernels/gemm/cuda/skinny.h"
#include "kernels/gemv/cuda/gemv.h"

namespace hanlin {
namespace {

constexpr int64_t kVocabulary = 51200;
constexpr int64_t kMaxRows = 4096;

struct Model {
  std::string_view name;
  int layers;
  int64_t width;
};

constexpr Model kModels[] = {
    {"base", 12, 768}, {"1.3B", 24, 2048}, {"2.7B", 32, 2560}, {"13B", 40, 5120}};

class Bench {
 public:
  static absl::Status Run(std::vector<std::string_view> names) {
    Bench bench;
    ASSIGN_OR_RETURN(bench.device_, OpenCudaDevice(0));
    ASSIGN_OR_RETURN(bench.stream_, CudaStream::Create());
    ASSIGN_OR_RETURN(bench.cublas_lt_, CublasLt::Create({}));
    ASSIGN_OR_RETURN(bench.read_rate_, MeasureReadRate(bench.stream_));
    fmt::print("{}: read rate {:.1f} GB/s\n", bench.device_.name, bench.read_rate_ / 1e9);
    for (const Model& model : kModels) {
      if (names.empty() || std::find(names.begin(), names.end(), model.name) != names.end()) {
        RETURN_IF_ERROR(bench.RunModel(model));
      }
    }
    return absl::OkStatus();
  }

 private:
  using Product = std::function<absl::Status(const GemmParams&)>;

  absl::Status RunModel(const Model& model) {
    const int64_t width = model.width;
    const size_t weights = 12 * width * width * model.layers + kVocabulary * width;
    ASSIGN_OR_RETURN(weights_, DeviceBuffer<BFloat16>::Create(weights));
    ASSIGN_OR_RETURN(normed_, DeviceBuffer<BFloat16>::Create(kMaxRows * width));
    ASSIGN_OR_RETURN(qkv_, DeviceBuffer<BFloat16>::Create(kMaxRows * 3 * width));
    ASSIGN_OR_RETURN(hidden_, DeviceBuffer<BFloat16>::Create(kMaxRows * 4 * width));
    ASSIGN_OR_RETURN(x_, DeviceBuffer<float>::Create(kMaxRows * width));
    ASSIGN_OR_RETURN(logits_, DeviceBuffer<float>::Create(128 * kVocabulary));
    ASSIGN_OR_RETURN(bias_, DeviceBuffer<float>::Create(4 * width));
    ASSIGN_OR_RETURN(bias_bf16_, DeviceBuffer<BFloat16>::Create(4 * width));
    RETURN_IF_ERROR(FillRandomBFloat16(weights_.data(), weights, 0.03f, stream_));
    RETURN_IF_ERROR(FillRandomBFloat16(normed_.data(), normed_.size(), 1.0f, stream_));
    RETURN_IF_ERROR(x_.Clear());
    RETURN_IF_ERROR(bias_.Clear());
    RETURN_IF_ERROR(bias_bf16_.Clear());
    for (int64_t m : {1, 4, 5, 8, 16, 32, 64, 96, 128}) RETURN_IF_ERROR(Decode(model, m));
    if (width <= 2560) {
      for (int64_t m : {512, 2048, 4096}) RETURN_IF_ERROR(Prefill(model, m));
    }
    return absl::OkStatus();
  }

  // qkv, out, up, down of every layer, then the logits where m is a decode batch.
  absl::Status Step(const Model& model, int64_t m, const Product& product) {
    const int64_t width = model.width;
    const BFloat16* weight = weights_.data();
    const auto run = [&](int64_t n, int64_t k, const void* x, LinearEpilogue epilogue, void* y) {
      const GemmParams params{.m = m,
                              .n = n,
                              .k = k,
                              .weight = weight,
                              .x = x,
                              .bias = n == kVocabulary ? nullptr : bias_.data(),
                              .bias_bf16 = bias_bf16_.data(),
                              .epilogue = epilogue,
                              .y = y};
      weight += n * k;
      return product(params);
    };
    for (int layer = 0; layer < model.layers; ++layer) {
      RETURN_IF_ERROR(run(3 * width, width, normed_.data(), LinearEpilogue::kNone, qkv_.data()));
      RETURN_IF_ERROR(run(width, width, qkv_.data(), LinearEpilogue::kResidual, x_.data()));
      RETURN_IF_ERROR(
          run(4 * width, width, normed_.data(), LinearEpilogue::kGeluTanh, hidden_.data()));
      RETURN_IF_ERROR(run(width, 4 * width, hidden_.data(), LinearEpilogue::kResidual, x_.data()));
    }
    if (m > 128) return absl::OkStatus();
    return run(kVocabulary, width, normed_.data(), LinearEpilogue::kFloat32, logits_.data());
  }

  absl::StatusOr<double> Time(const Model& model, int64_t m, int repeats, const Product& product) {
    ASSIGN_OR_RETURN(const CudaGraph graph,
                     CudaGraph::Capture(stream_, [&] { return Step(model, m, product); }));
    return MeasureMilliseconds(stream_, 3, repeats, [&] { return graph.Launch(stream_); });
  }

  absl::Status Prepare(const Model& model, int64_t m) {
    return Step({model.name, 1, model.width}, m,
                [&](const GemmParams& p) { return cublas_lt_->Prepare(p, stream_); });
  }

  absl::Status Gemv(const GemmParams& p) {
    const int batch = static_cast<int>(p.m);
    ASSIGN_OR_RETURN(const GemvPlan plan, PlanGemv(p.n, p.k, batch, device_.multiprocessors,
                                                   device_.shared_memory_per_block));
    return hanlin::Gemv({.n = p.n,
                         .k = p.k,
                         .batch = batch,
                         .weight = static_cast<const BFloat16*>(p.weight),
                         .x = p.x,
                         .bias = p.bias,
                         .epilogue = p.epilogue,
                         .y = p.y},
                        plan, stream_.get());
  }

  absl::Status Decode(const Model& model, int64_t m) {
    const double bytes = static_cast<double>(weights_.size()) * 2;
    const auto report = [&](std::string_view what, const Product& product) -> absl::Status {
      ASSIGN_OR_RETURN(const double milliseconds, Time(model, m, 8, product));
      fmt::print(" {} {:.4f} ms {:.1f} %", what, milliseconds,
                 bytes / milliseconds / 1e-3 / read_rate_ * 100);
      return absl::OkStatus();
    };
    fmt::print("decode {} batch {}:", model.name, m);
    if (m <= kGemvMaxBatch) {
      RETURN_IF_ERROR(report("gemv", [&](const GemmParams& p) { return Gemv(p); }));
    }
    RETURN_IF_ERROR(report("skinny", [&](const GemmParams& p) -> absl::Status {
      ASSIGN_OR_RETURN(const SkinnyPlan plan, PlanSkinny(p.m, p.n, p.k, device_.multiprocessors));
      return SkinnyGemm(p, plan, stream_.get());
    }));
    if (m > 64 && m <= kMediumRows) {
      RETURN_IF_ERROR(report("medium", [&](const GemmParams& p) -> absl::Status {
        ASSIGN_OR_RETURN(const MediumPlan plan, PlanMedium(p.n, p.k, device_.multiprocessors));
        return MediumGemm(p, plan, stream_.get());
      }));
    }
    RETURN_IF_ERROR(Prepare(model, m));
    RETURN_IF_ERROR(
        report("cublasLt", [&](const GemmParams& p) { return cublas_lt_->Run(p, stream_); }));
    fmt::print("\n");
    std::fflush(stdout);
    return absl::OkStatus();
  }

  absl::Status Prefill(const Model& model, int64_t m) {
    RETURN_IF_ERROR(Prepare(model, m));
    ASSIGN_OR_RETURN(const double milliseconds, Time(model, m, 1, [&](const GemmParams& p) {
                       return cublas_lt_->Run(p, stream_);
                     }));
    const double flops = 24.0 * model.width * model.width * model.layers * m;
    fmt::print("prefill {} rows {}: cublasLt {:.3f} ms {:.1f} TFLOP/s\n", model.name, m,
               milliseconds, flops / milliseconds / 1e9);
    std::fflush(stdout);
    return absl::OkStatus();
  }

  CudaDevice device_;
  CudaStream stream_;
  double read_rate_ = 0.0;
  std::unique_ptr<CublasLt> cublas_lt_;
  DeviceBuffer<BFloat16> weights_, normed_, qkv_, hidden_, bias_bf16_;
  DeviceBuffer<float> x_, logits_, bias_;
};

}  // namespace
}  // namespace hanlin

int main(int argc, char** argv) {
  return hanlin::ExitCode(hanlin::Bench::Run(std::vector<std::string_view>(argv + 1, argv + argc)));
}
