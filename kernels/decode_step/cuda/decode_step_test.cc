// A step against the separate kernels on the same weights, over edge contexts; steps in a graph;
// the checks. Both sides round activations to bf16 and add in other orders, so tolerances cover
// values that round to the other side.
#include "kernels/decode_step/cuda/decode_step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/attention/cuda/paged_attention.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/gemv/cuda/gemv.h"

namespace hanlin {
namespace {

constexpr int kCacheBlocks = 150;
constexpr int kVectors = 13;  // of `hidden` floats a layer
constexpr float kEpsilon = 1e-5f;

class DecodeStepGpuTest : public HopperTest {
 protected:
  // Weights, cache and vectors of `layers` layers.
  absl::Status Make(int head_dim, int layers) {
    head_dim_ = head_dim;
    hidden_ = kDecodeStepHeads * head_dim;
    const size_t square = size_t{1} * hidden_ * hidden_;
    ASSIGN_OR_RETURN(weights_, DeviceBuffer<BFloat16>::Create(layers * 12 * square));
    RETURN_IF_ERROR(FillRandomBFloat16(weights_.data(), weights_.size(),
                                       1.7f / std::sqrt(1.0f * hidden_), stream_));
    ASSIGN_OR_RETURN(cache_, DeviceBuffer<BFloat16>::Create(layers * CacheElements()));
    std::vector<float> vectors(size_t{1} * layers * kVectors * hidden_);
    std::normal_distribution<float> normal(0.0f, 0.1f);
    for (size_t i = 0; i < vectors.size(); ++i) {
      const size_t which = i / hidden_ % kVectors;
      vectors[i] = normal(random_) + (which == 9 || which == 11 ? 1.0f : 0.0f);
    }
    ASSIGN_OR_RETURN(vectors_, DeviceBuffer<float>::From(vectors));
    layers_.clear();
    for (int i = 0; i < layers; ++i) {
      const BFloat16* const w = weights_.data() + i * 12 * square;
      const float* const v = vectors_.data() + size_t{1} * i * kVectors * hidden_;
      layers_.push_back({.qkv = w,
                         .out = w + 3 * square,
                         .up = w + 4 * square,
                         .down = w + 8 * square,
                         .qkv_bias = v,
                         .out_bias = v + 3 * hidden_,
                         .up_bias = v + 4 * hidden_,
                         .down_bias = v + 8 * hidden_,
                         .norm1_weight = v + 9 * hidden_,
                         .norm1_bias = v + 10 * hidden_,
                         .norm2_weight = v + 11 * hidden_,
                         .norm2_bias = v + 12 * hidden_});
    }
    ASSIGN_OR_RETURN(device_layers_, DeviceBuffer<DecodeStepLayer>::From(layers_));
    std::vector<int32_t> table(kCacheBlocks);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), random_);
    ASSIGN_OR_RETURN(table_, DeviceBuffer<int32_t>::From(table));
    x_values_.resize(hidden_);
    for (float& value : x_values_) value = 10 * normal(random_) + 0.5f;
    ASSIGN_OR_RETURN(x_, DeviceBuffer<float>::From(x_values_));
    ASSIGN_OR_RETURN(x_start_, DeviceBuffer<float>::From(x_values_));
    ASSIGN_OR_RETURN(qkv_, DeviceBuffer<BFloat16>::Create(3 * hidden_));
    ASSIGN_OR_RETURN(attention_, DeviceBuffer<BFloat16>::Create(kDecodeStepSplits * hidden_));
    ASSIGN_OR_RETURN(mlp_, DeviceBuffer<BFloat16>::Create(4 * hidden_));
    ASSIGN_OR_RETURN(exchange_, DeviceBuffer<DecodeStepExchange>::Create(1));
    return exchange_.Clear();
  }

  size_t CacheElements() const { return size_t{2} * kCacheBlocks * kPagedKvTokens * hidden_; }

  absl::Status Reset(int context) {
    RETURN_IF_ERROR(FillRandomBFloat16(cache_.data(), cache_.size(), 1.0f, stream_));
    RETURN_IF_ERROR(stream_.Synchronize());
    ASSIGN_OR_RETURN(context_, DeviceBuffer<int32_t>::From(std::vector<int32_t>{context}));
    return x_.CopyFrom(x_values_);
  }

  PagedKv Kv(int layer) const {
    return {.type = ComputeType::kBFloat16,
            .heads = kDecodeStepHeads,
            .head_dim = head_dim_,
            .base = cache_.data() + layer * CacheElements(),
            .block_tables = table_.data(),
            .table_stride = kCacheBlocks};
  }

  DecodeStepParams Params(bool erf) const {
    return {.hidden = hidden_,
            .num_layers = static_cast<int>(layers_.size()),
            .layers = device_layers_.data(),
            .epsilon = kEpsilon,
            .gelu_erf = erf,
            .kv = Kv(0),
            .kv_layer_bytes = static_cast<int64_t>(CacheElements() * sizeof(BFloat16)),
            .context = context_.data(),
            .x = x_.data(),
            .qkv = qkv_.data(),
            .attention = attention_.data(),
            .mlp = mlp_.data(),
            .exchange = exchange_.data()};
  }

  // The same step by the kernels that it replaces.
  absl::Status RunSeparately(bool erf) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      const DecodeStepLayer& w = layers_[i];
      GemvParams product = {.n = 3 * hidden_,
                            .k = hidden_,
                            .weight = w.qkv,
                            .input = GemvInput::kLayerNorm,
                            .x = x_.data(),
                            .norm_weight = w.norm1_weight,
                            .norm_bias = w.norm1_bias,
                            .epsilon = kEpsilon,
                            .bias = w.qkv_bias,
                            .y = qkv_.data()};
      RETURN_IF_ERROR(Product(product));
      ASSIGN_OR_RETURN(
          const DecodeAttentionPlan plan,
          PlanDecodeAttention(ComputeType::kBFloat16, 1, kDecodeStepHeads, head_dim_, device_));
      RETURN_IF_ERROR(DecodeAttention({.kv = Kv(static_cast<int>(i)),
                                       .batch = 1,
                                       .context = context_.data(),
                                       .qkv = qkv_.data(),
                                       .out = attention_.data()},
                                      plan, stream_.get()));
      RETURN_IF_ERROR(Product({.n = hidden_,
                               .k = hidden_,
                               .weight = w.out,
                               .input = GemvInput::kBFloat16,
                               .x = attention_.data(),
                               .bias = w.out_bias,
                               .epilogue = LinearEpilogue::kResidual,
                               .y = x_.data()}));
      product.n = 4 * hidden_;
      product.weight = w.up;
      product.norm_weight = w.norm2_weight;
      product.norm_bias = w.norm2_bias;
      product.bias = w.up_bias;
      product.epilogue = erf ? LinearEpilogue::kGeluErf : LinearEpilogue::kGeluTanh;
      product.y = mlp_.data();
      RETURN_IF_ERROR(Product(product));
      RETURN_IF_ERROR(Product({.n = hidden_,
                               .k = 4 * hidden_,
                               .weight = w.down,
                               .input = GemvInput::kBFloat16,
                               .x = mlp_.data(),
                               .bias = w.down_bias,
                               .epilogue = LinearEpilogue::kResidual,
                               .y = x_.data()}));
    }
    return absl::OkStatus();
  }

  // What a step leaves behind.
  struct Result {
    std::vector<float> x;
    std::vector<BFloat16> cache;
  };
  Result Results() { return {FromDevice(x_), FromDevice(cache_)}; }

  int head_dim_ = 0, hidden_ = 0;
  std::mt19937 random_{11};
  std::vector<DecodeStepLayer> layers_;
  std::vector<float> x_values_;
  DeviceBuffer<BFloat16> weights_, cache_, qkv_, attention_, mlp_;
  DeviceBuffer<float> vectors_, x_, x_start_;
  DeviceBuffer<int32_t> table_, context_;
  DeviceBuffer<DecodeStepLayer> device_layers_;
  DeviceBuffer<DecodeStepExchange> exchange_;

 private:
  absl::Status Product(const GemvParams& params) {
    ASSIGN_OR_RETURN(const GemvPlan plan, PlanGemv(params.n, params.k, 1, device_.multiprocessors,
                                                   device_.shared_memory_per_block));
    return Gemv(params, plan, stream_.get());
  }
};

TEST_F(DecodeStepGpuTest, MatchesTheSeparateKernelsAtEdgeContexts) {
  for (const int head_dim : {64, 80}) {
    const absl::Status made = Make(head_dim, 3);
    ASSERT_TRUE(made.ok()) << made;
    for (const int context : {0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1000, 2047}) {
      const bool erf = context % 2 == 1;
      SCOPED_TRACE(testing::Message() << "head size " << head_dim << ", context " << context);
      ASSERT_TRUE(Reset(context).ok());
      absl::Status ran = RunSeparately(erf);
      ASSERT_TRUE(ran.ok()) << ran;
      const Result want = Results();
      ASSERT_TRUE(Reset(context).ok());
      const std::vector<BFloat16> before = FromDevice(cache_);
      ran = DecodeStep(Params(erf), stream_.get());
      ASSERT_TRUE(ran.ok()) << ran;
      const Result got = Results();
      double error = 0, power = 0;
      for (int i = 0; i < hidden_; ++i) {
        ASSERT_NEAR(got.x[i], want.x[i], 0.06) << i;
        error += std::pow(got.x[i] - want.x[i], 2);
        power += std::pow(want.x[i], 2);
      }
      EXPECT_LT(std::sqrt(error / power), 0.006);
      size_t changed = 0;
      for (size_t i = 0; i < before.size(); ++i) {
        changed += got.cache[i].bits != before[i].bits;
        if (got.cache[i].bits == want.cache[i].bits) continue;
        ASSERT_NEAR(ToFloat(got.cache[i]), ToFloat(want.cache[i]), 0.06) << i;
      }
      EXPECT_LE(changed, layers_.size() * 2 * hidden_) << "only the new token's slots are written";
    }
  }
}

TEST_F(DecodeStepGpuTest, StepsInAGraphGiveTheSameBitsEachTime) {
  const absl::Status made = Make(64, 4);
  ASSERT_TRUE(made.ok()) << made;
  ASSERT_TRUE(Reset(300).ok());
  const auto graph = CudaGraph::Capture(stream_, [&]() -> absl::Status {
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(x_.data(), x_start_.data(), hidden_ * sizeof(float),
                                         cudaMemcpyDeviceToDevice, stream_.get()));
    RETURN_IF_ERROR(DecodeStep(Params(false), stream_.get()));
    return DecodeStep(Params(true), stream_.get());
  });
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::vector<float> first;
  for (int run = 0; run < 50; ++run) {
    ASSERT_TRUE(graph->Launch(stream_).ok());
    const std::vector<float> got = FromDevice(x_);
    if (run == 0) first = got;
    ASSERT_EQ(got, first) << "run " << run;
  }
}

TEST(DecodeStepTest, OnlyModelsOf32HeadsOnALargeDeviceHaveIt) {
  const auto has = [](ComputeType type, int hidden, int heads, int ffn, int layers, int positions,
                      int sms, size_t shared, bool hopper = true) {
    CudaDevice device;
    device.hopper = hopper;
    device.multiprocessors = sms;
    device.shared_memory_per_block = shared;
    return HasDecodeStep(type, hidden, heads, ffn, layers, positions, device);
  };
  constexpr auto kBf16 = ComputeType::kBFloat16;
  EXPECT_TRUE(has(kBf16, 2048, 32, 8192, 24, 2048, 132, 232448)) << "1.3B";
  EXPECT_TRUE(has(kBf16, 2560, 32, 10240, 32, 2048, 132, 232448)) << "2.7B";
  EXPECT_FALSE(has(ComputeType::kFloat32, 2048, 32, 8192, 24, 2048, 132, 232448));
  EXPECT_FALSE(has(kBf16, 768, 12, 3072, 12, 2048, 132, 232448)) << "base";
  EXPECT_FALSE(has(kBf16, 4096, 32, 16384, 24, 2048, 132, 232448)) << "head size 128";
  EXPECT_FALSE(has(kBf16, 2048, 32, 4096, 24, 2048, 132, 232448));
  EXPECT_FALSE(has(kBf16, 2048, 32, 8192, 33, 2048, 132, 232448));
  EXPECT_FALSE(has(kBf16, 2048, 32, 8192, 24, 4096, 132, 232448));
  EXPECT_FALSE(has(kBf16, 2048, 32, 8192, 24, 2048, 114, 232448)) << "too few multiprocessors";
  EXPECT_FALSE(has(kBf16, 2048, 32, 8192, 24, 2048, 132, 166912)) << "too little shared memory";
  EXPECT_FALSE(has(kBf16, 2048, 32, 8192, 24, 2048, 132, 232448, false)) << "other instructions";
}

TEST(DecodeStepTest, RefusesWhatIsMissingOrUnaligned) {
  alignas(128) std::byte memory[256] = {};
  const auto at = [&]<typename T>(T* DecodeStepParams::*) { return reinterpret_cast<T*>(memory); };
  const DecodeStepParams good = {.hidden = 2048,
                                 .num_layers = 1,
                                 .layers = at(&DecodeStepParams::layers),
                                 .kv = {.heads = kDecodeStepHeads,
                                        .head_dim = 64,
                                        .base = memory,
                                        .block_tables = reinterpret_cast<const int32_t*>(memory)},
                                 .context = at(&DecodeStepParams::context),
                                 .x = at(&DecodeStepParams::x),
                                 .qkv = at(&DecodeStepParams::qkv),
                                 .attention = at(&DecodeStepParams::attention),
                                 .mlp = at(&DecodeStepParams::mlp),
                                 .exchange = at(&DecodeStepParams::exchange)};
  const auto refuses = [&](auto&& spoil) {
    DecodeStepParams params = good;
    spoil(params);
    return DecodeStep(params, nullptr).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refuses([](auto& p) { p.hidden = 2560; }));
  EXPECT_TRUE(refuses([](auto& p) { p.kv.head_dim = 72; }));
  EXPECT_TRUE(refuses([](auto& p) { p.kv.heads = 16; }));
  EXPECT_TRUE(refuses([](auto& p) { p.kv.type = ComputeType::kFloat32; }));
  EXPECT_TRUE(refuses([](auto& p) { p.num_layers = 0; }));
  EXPECT_TRUE(refuses([](auto& p) { p.num_layers = kDecodeStepMaxLayers + 1; }));
  EXPECT_TRUE(refuses([](auto& p) { p.kv_layer_bytes = 8; }));
  EXPECT_TRUE(refuses([](auto& p) { p.layers = nullptr; }));
  EXPECT_TRUE(refuses([](auto& p) { p.kv.block_tables = nullptr; }));
  EXPECT_TRUE(refuses([](auto& p) { p.context = nullptr; }));
  EXPECT_TRUE(refuses([](auto& p) { ++p.x; }));
  EXPECT_TRUE(refuses([](auto& p) { ++p.qkv; }));
  EXPECT_TRUE(refuses([](auto& p) { p.exchange = nullptr; }));
}

}  // namespace
}  // namespace hanlin
