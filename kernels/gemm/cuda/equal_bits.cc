// See equal_bits.h.
#include "kernels/gemm/cuda/equal_bits.h"

#include <utility>

#include "common/cuda/buffer.h"
#include "common/cuda/status.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/gemm/cuda/digest_launch.h"

namespace hanlin {
namespace {

using Algorithms = std::vector<cublasLtMatmulAlgo_t>;

// A product of noise.
class Trial {
 public:
  Trial(const CublasLtBytes& bytes, const CublasLtWorkspace& workspace, const CudaStream& stream,
        CublasLtPlan& plan)
      : bytes_(bytes), workspace_(workspace), stream_(stream), plan_(plan) {}

  // RESOURCE_EXHAUSTED without memory.
  absl::Status Prepare(size_t count);
  absl::Status Launch() const {
    const bool adds = bytes_.addend > 0;
    return plan_.Launch(a_, b_, adds ? 1.0f : 0.0f, adds ? addend_ : d_, d_, workspace_,
                        stream_.get());
  }
  // Those of `algorithms` that give the first one's bits; none if that one does not run.
  absl::StatusOr<Algorithms> WithEqualBits(const Algorithms& algorithms);

 private:
  const CublasLtBytes bytes_;
  const CublasLtWorkspace workspace_;
  const CudaStream& stream_;
  CublasLtPlan& plan_;
  DeviceBuffer<std::byte> memory_;
  DeviceBuffer<unsigned long long> digests_;
  std::byte *a_ = nullptr, *b_ = nullptr, *d_ = nullptr;
  std::byte *bias_ = nullptr, *aux_ = nullptr, *addend_ = nullptr;
};

absl::Status Trial::Prepare(size_t count) {
  constexpr size_t kAlignment = 256;
  const auto padded = [](size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; };
  const size_t total = padded(bytes_.a) + padded(bytes_.b) + padded(bytes_.d) +
                       padded(bytes_.bias) + padded(bytes_.aux) + padded(bytes_.addend);
  ASSIGN_OR_RETURN(memory_, DeviceBuffer<std::byte>::Create(total));
  ASSIGN_OR_RETURN(digests_, DeviceBuffer<unsigned long long>::Create(count));
  // As fp32, pairs of these are noise in [-1, 1] as well.
  RETURN_IF_ERROR(FillRandomBFloat16(memory_.data(), total / sizeof(uint16_t), 1.0f, stream_));
  RETURN_IF_CUDA_ERROR(
      cudaMemsetAsync(digests_.data(), 0, count * sizeof(*digests_.data()), stream_.get()));
  std::byte* next = memory_.data();
  const auto take = [&](size_t n) { return std::exchange(next, next + padded(n)); };
  a_ = take(bytes_.a);
  b_ = take(bytes_.b);
  d_ = take(bytes_.d);
  bias_ = take(bytes_.bias);
  aux_ = take(bytes_.aux);
  addend_ = take(bytes_.addend);
  if (bytes_.bias > 0) RETURN_IF_ERROR(plan_.Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_));
  if (bytes_.aux > 0) RETURN_IF_ERROR(plan_.Set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux_));
  return absl::OkStatus();
}

absl::StatusOr<Algorithms> Trial::WithEqualBits(const Algorithms& algorithms) {
  std::vector<bool> ran(algorithms.size(), false);
  for (size_t i = 0; i < algorithms.size(); ++i) {
    plan_.algorithm = algorithms[i];
    // Nothing of the run before may stay.
    RETURN_IF_CUDA_ERROR(cudaMemsetAsync(d_, 0xff, bytes_.d, stream_.get()));
    ran[i] = Launch().ok();
    if (!ran[0]) return Algorithms();
    if (!ran[i]) continue;
    unsigned long long* const digest = digests_.data() + i;
    RETURN_IF_CUDA_ERROR(
        LaunchDigest(d_, static_cast<int64_t>(bytes_.d / sizeof(uint16_t)), digest, stream_.get()));
  }
  RETURN_IF_ERROR(stream_.Synchronize());
  ASSIGN_OR_RETURN(const auto digests, digests_.ToHost());
  Algorithms equal;
  for (size_t i = 0; i < algorithms.size(); ++i) {
    if (ran[i] && digests[i] == digests[0]) equal.push_back(algorithms[i]);
  }
  return equal;
}

}  // namespace

absl::StatusOr<EqualBitsChoice> ChooseByEqualBits(const Algorithms& algorithms,
                                                  const CublasLtBytes& bytes,
                                                  const CublasLtWorkspace& workspace,
                                                  const CudaStream& stream, CublasLtPlan& plan) {
  EqualBitsChoice choice = {.candidates = static_cast<int>(algorithms.size())};
  plan.algorithm = algorithms.front();
  Trial trial(bytes, workspace, stream, plan);
  const absl::Status prepared = trial.Prepare(algorithms.size());
  if (prepared.code() == absl::StatusCode::kResourceExhausted) return choice;
  RETURN_IF_ERROR(prepared);
  auto equal = trial.WithEqualBits(algorithms);
  plan.algorithm = algorithms.front();
  RETURN_IF_ERROR(equal.status());
  if (equal->empty()) return choice;
  choice.equal = static_cast<int>(equal->size());
  const auto launch = [&] { return trial.Launch(); };
  ASSIGN_OR_RETURN(choice.first, plan.ChooseFastest({algorithms.front()}, stream, launch));
  ASSIGN_OR_RETURN(choice.chosen, plan.ChooseFastest(*equal, stream, launch));
  return choice;
}

}  // namespace hanlin
