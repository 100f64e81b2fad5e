// Times the kernels of a training step that memory bounds: microseconds, GB/s of what they must
// move, and the share of the read rate measured in the same run. bf16, a micro-batch of each model.
// Usage: kernels_train_cuda_benchmark [rate of dropout]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "common/cuda/stream.h"
#include "kernels/base/cuda/benchmark_main.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/elementwise/cuda/elementwise.h"
#include "kernels/embed/cuda/embed_train.h"
#include "kernels/loss/cuda/cross_entropy.h"
#include "kernels/norm/cuda/layer_norm_train.h"
#include "kernels/optim/cuda/adamw.h"

namespace hanlin {
namespace {

constexpr auto kType = ComputeType::kBFloat16;
constexpr int64_t kVocabulary = 51200;
constexpr int64_t kLossRows = 4096;
constexpr int64_t kParameters = 124'000'000;

class Bench {
 public:
  static absl::Status Run(float rate) {
    Bench bench;
    ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(0));
    ASSIGN_OR_RETURN(bench.stream_, CudaStream::Create());
    ASSIGN_OR_RETURN(bench.read_rate_, MeasureReadRate(bench.stream_));
    fmt::print("{}: read rate {:.1f} GB/s, dropout {}\n", device.name, bench.read_rate_ / 1e9,
               rate);
    bench.dropout_.rate = rate;
    for (const auto& [tokens, width] : {std::pair{65536, 768}, {16384, 2048}, {8192, 2560}}) {
      RETURN_IF_ERROR(bench.Layer(tokens, width));
    }
    RETURN_IF_ERROR(bench.Loss());
    return bench.Optimizer();
  }

 private:
  absl::Status Report(std::string_view name, double bytes,
                      const std::function<absl::Status()>& work) {
    ASSIGN_OR_RETURN(const double milliseconds, MeasureMilliseconds(stream_, 5, 10, work));
    const double rate = bytes / milliseconds * 1e3;
    fmt::print("  {:32} {:9.1f} us {:7.1f} GB/s {:5.1f} %\n", name, milliseconds * 1e3, rate / 1e9,
               rate / read_rate_ * 100);
    std::fflush(stdout);
    return absl::OkStatus();
  }

  absl::Status Layer(int64_t tokens, int64_t width) {
    fmt::print("{} tokens of {}\n", tokens, width);
    const int64_t ffn = 4 * width;
    const double unit = 2.0 * tokens * width;  // bytes of a hidden state
    ASSIGN_OR_RETURN(const auto a, Random(tokens * ffn));
    ASSIGN_OR_RETURN(const auto b, Random(tokens * ffn));
    ASSIGN_OR_RETURN(const auto c, Random(tokens * width));
    ASSIGN_OR_RETURN(const auto vectors, DeviceBuffer<float>::Create(2 * ffn));
    ASSIGN_OR_RETURN(const auto statistics, DeviceBuffer<float>::Create(2 * tokens));
    const size_t bytes = std::max(CudaLayerNormBackwardBytes(kType, tokens, width),
                                  CudaColumnSumsBytes(kType, tokens, ffn));
    ASSIGN_OR_RETURN(const auto workspace, DeviceBuffer<uint8_t>::Create(bytes));
    float* const vector = vectors.data();
    float* const gradient = vector + ffn;
    const auto norm = [&](const void* delta) {
      return CudaLayerNormTrain({.type = kType,
                                 .rows = tokens,
                                 .width = width,
                                 .x = a.data(),
                                 .delta = delta,
                                 .delta_bias = vector,
                                 .dropout = dropout_,
                                 .sum = c.data(),
                                 .weight = vector,
                                 .bias = vector,
                                 .mean = statistics.data(),
                                 .rstd = statistics.data() + tokens,
                                 .y = b.data()},
                                stream_.get());
    };
    RETURN_IF_ERROR(CudaWiden(a.data(), ffn, vector, stream_.get()));
    RETURN_IF_ERROR(Report("LayerNorm", 2 * unit, [&] { return norm(nullptr); }));
    RETURN_IF_ERROR(
        Report("residual, dropout, LayerNorm", 4 * unit, [&] { return norm(c.data()); }));
    const auto norm_backward = [&](float* dx_sums) {
      return CudaLayerNormBackward({.type = kType,
                                    .rows = tokens,
                                    .width = width,
                                    .x = a.data(),
                                    .weight = vector,
                                    .mean = statistics.data(),
                                    .rstd = statistics.data() + tokens,
                                    .dy = b.data(),
                                    .dx = c.data(),
                                    .dweight = gradient,
                                    .dbias = gradient,
                                    .dx_sums = dx_sums,
                                    .workspace = workspace.data()},
                                   stream_.get());
    };
    RETURN_IF_ERROR(Report("LayerNorm backward", 4 * unit, [&] { return norm_backward(nullptr); }));
    RETURN_IF_ERROR(
        Report("LayerNorm backward with sums", 4 * unit, [&] { return norm_backward(gradient); }));
    RETURN_IF_ERROR(Report("column sums", unit, [&] {
      return CudaAddColumnSums(kType, a.data(), tokens, width, gradient, workspace.data(),
                               stream_.get());
    }));
    RETURN_IF_ERROR(Report("dropout with sums", 2 * unit, [&] {
      return CudaDropoutSums(dropout_, kType, a.data(), tokens, width, c.data(), gradient,
                             workspace.data(), stream_.get());
    }));
    for (const GeluForm form : {GeluForm::kTanh, GeluForm::kErf}) {
      const bool erf = form == GeluForm::kErf;
      RETURN_IF_ERROR(Report(erf ? "GELU (erf)" : "GELU (tanh)", 8 * unit, [&] {
        return CudaGelu(form, kType, a.data(), tokens * ffn, b.data(), stream_.get());
      }));
      RETURN_IF_ERROR(Report(
          erf ? "GELU (erf) backward with sums" : "GELU (tanh) backward with sums", 12 * unit, [&] {
            return CudaGeluBackwardSums(form, kType, a.data(), b.data(), tokens, ffn, b.data(),
                                        gradient, workspace.data(), stream_.get());
          }));
    }
    return Embedding(tokens, width, c);
  }

  // Ids as frequent as those of text, the first has 8 % of the tokens and the n-th in proportion to
  // 1 / n; uniform ids; positions of sequences of 1024.
  absl::Status Embedding(int64_t tokens, int64_t width, const DeviceBuffer<BFloat16>& dout) {
    std::vector<int32_t> text(tokens), uniform(tokens), positions(tokens);
    for (int64_t i = 0; i < tokens; ++i) {
      const double draw = static_cast<double>(i * 2654435761u % tokens) / tokens;
      text[i] =
          draw < 0.08 ? 0 : static_cast<int32_t>(std::pow(kVocabulary, (draw - 0.08) / 0.92)) - 1;
      uniform[i] = static_cast<int32_t>(draw * kVocabulary);
      positions[i] = static_cast<int32_t>(i % 1024);
    }
    RETURN_IF_ERROR(EmbeddingBackward("embedding backward, text", text, width, dout));
    RETURN_IF_ERROR(EmbeddingBackward("embedding backward, uniform", uniform, width, dout));
    return EmbeddingBackward("embedding backward, positions", positions, width, dout);
  }

  absl::Status EmbeddingBackward(std::string_view name, const std::vector<int32_t>& ids,
                                 int64_t width, const DeviceBuffer<BFloat16>& dout) {
    const auto tokens = static_cast<int64_t>(ids.size());
    std::vector<int32_t> order(tokens);
    std::vector<bool> seen(kVocabulary);
    for (const int32_t id : ids) seen[id] = true;
    const auto distinct = static_cast<double>(std::count(seen.begin(), seen.end(), true));
    OrderRows(ids, kVocabulary, order.data());
    ASSIGN_OR_RETURN(const auto d_ids, DeviceBuffer<int32_t>::From(ids));
    ASSIGN_OR_RETURN(const auto d_order, DeviceBuffer<int32_t>::From(order));
    ASSIGN_OR_RETURN(const auto dtable, DeviceBuffer<float>::Create(kVocabulary * width));
    return Report(name, (2.0 * tokens + 8.0 * distinct) * width, [&] {
      return CudaEmbedBackward({.type = kType,
                                .rows = tokens,
                                .width = width,
                                .ids = d_ids.data(),
                                .order = d_order.data(),
                                .begin = 0,
                                .size = kVocabulary,
                                .dout = dout.data(),
                                .dtable = dtable.data()},
                               stream_.get());
    });
  }

  absl::Status Loss() {
    fmt::print("{} rows of {} logits\n", kLossRows, kVocabulary);
    const double unit = 2.0 * kLossRows * kVocabulary;
    ASSIGN_OR_RETURN(const auto logits, Random(kLossRows * kVocabulary));
    ASSIGN_OR_RETURN(const auto labels,
                     DeviceBuffer<int32_t>::From(std::vector<int32_t>(kLossRows, 7)));
    ASSIGN_OR_RETURN(const auto weights,
                     DeviceBuffer<float>::From(std::vector<float>(kLossRows, 1.0f)));
    ASSIGN_OR_RETURN(const auto loss, DeviceBuffer<float>::Create(2 * kLossRows));
    ASSIGN_OR_RETURN(const auto stats, DeviceBuffer<CrossEntropyStat>::Create(kLossRows));
    const CudaCrossEntropyParams params = {.type = kType,
                                           .rows = kLossRows,
                                           .vocabulary_size = kVocabulary,
                                           .logits = logits.data(),
                                           .labels = labels.data()};
    RETURN_IF_ERROR(Report("cross-entropy in one step", 2 * unit, [&] {
      return CudaCrossEntropy(params, weights.data(), loss.data(), stream_.get());
    }));
    return Report("cross-entropy in three steps", 3 * unit, [&]() -> absl::Status {
      float* const log_sum = loss.data() + kLossRows;
      RETURN_IF_ERROR(CudaCrossEntropyStats(params, 0, 1, stats.data(), stream_.get()));
      RETURN_IF_ERROR(
          CudaJoinStats(stats.data(), kLossRows, 1, log_sum, loss.data(), stream_.get()));
      return CudaCrossEntropyGradient(params, log_sum, weights.data(), stream_.get());
    });
  }

  absl::Status Optimizer() {
    fmt::print("{} parameters\n", kParameters);
    ASSIGN_OR_RETURN(const auto high, Random(kParameters));
    ASSIGN_OR_RETURN(auto low, DeviceBuffer<uint16_t>::Create(kParameters));
    ASSIGN_OR_RETURN(auto floats, DeviceBuffer<float>::Create(3 * kParameters));
    ASSIGN_OR_RETURN(const auto sums, DeviceBuffer<double>::Create(kSquareParts + 1));
    RETURN_IF_ERROR(low.Clear());
    RETURN_IF_ERROR(floats.Clear());
    const CudaAdamWArrays arrays = {.count = kParameters,
                                    .high = high.data(),
                                    .low = low.data(),
                                    .gradients = floats.data(),
                                    .m = floats.data() + kParameters,
                                    .v = floats.data() + 2 * kParameters};
    RETURN_IF_ERROR(Report("AdamW", 28.0 * kParameters, [&] {
      return CudaAdamW(arrays, {.learning_rate = 1e-4}, stream_.get());
    }));
    return Report("norm of the gradient", 4.0 * kParameters, [&] {
      return CudaSumOfSquares(arrays.gradients, kParameters, false, sums.data(),
                              sums.data() + kSquareParts, stream_.get());
    });
  }

  absl::StatusOr<DeviceBuffer<BFloat16>> Random(int64_t count) {
    ASSIGN_OR_RETURN(DeviceBuffer<BFloat16> values, DeviceBuffer<BFloat16>::Create(count));
    RETURN_IF_ERROR(FillRandomBFloat16(values.data(), count, 1.0f, stream_));
    return values;
  }

  CudaStream stream_;
  double read_rate_ = 0.0;
  DropoutParams dropout_;
};

}  // namespace
}  // namespace hanlin

int main(int argc, char** argv) {
  return hanlin::ExitCode(hanlin::Bench::Run(argc > 1 ? std::strtof(argv[1], nullptr) : 0.0f));
}
