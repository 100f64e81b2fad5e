// Each block against a reference in double over edge contexts, a chain of layers in a graph, and
// the checks. The reference rounds activations to bf16 where the kernels do, so tolerances cover
// sums in another order and values that round to the other side: a few bf16 steps.
#include "kernels/decode_block/cuda/decode_block.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "common/cuda/testing.h"

namespace hanlin {
namespace {

constexpr int kHidden = kDecodeBlockHidden;
constexpr int kHeadDim = kDecodeBlockHeadDim;
constexpr int kHeads = kDecodeBlockHeads;
constexpr int kFfn = kDecodeBlockFfn;
constexpr int kCacheBlocks = 160;
constexpr float kEpsilon = 1e-5f;

using Doubles = std::vector<double>;

double Rounded(double value) { return ToFloat(ToBFloat16(static_cast<float>(value))); }

// A layer's arrays on both sides.
struct Layer {
  std::vector<BFloat16> qkv, out, up, down;
  std::vector<float> norm1, norm1_bias, norm2, norm2_bias, qkv_bias, out_bias, up_bias, down_bias;
  std::vector<BFloat16> cache;  // [blocks][2][heads][16][head_dim]
};

class DecodeBlockGpuTest : public HopperTest {
 protected:
  std::vector<BFloat16> Bf16(size_t count, float scale) {
    std::vector<BFloat16> values(count);
    std::normal_distribution<float> normal(0.0f, scale);
    for (BFloat16& value : values) value = ToBFloat16(normal(random_));
    return values;
  }
  std::vector<float> Floats(size_t count, float mean, float scale) {
    std::vector<float> values(count);
    std::normal_distribution<float> normal(mean, scale);
    for (float& value : values) value = normal(random_);
    return values;
  }
  Layer MakeLayer() {
    const float scale = 1.0f / std::sqrt(static_cast<float>(kHidden));
    return {.qkv = Bf16(3 * kHidden * kHidden, scale),
            .out = Bf16(kHidden * kHidden, scale),
            .up = Bf16(kFfn * kHidden, scale),
            .down = Bf16(kFfn * kHidden, scale / 2),
            .norm1 = Floats(kHidden, 1, 0.1f),
            .norm1_bias = Floats(kHidden, 0, 0.1f),
            .norm2 = Floats(kHidden, 1, 0.1f),
            .norm2_bias = Floats(kHidden, 0, 0.1f),
            .qkv_bias = Floats(3 * kHidden, 0, 0.1f),
            .out_bias = Floats(kHidden, 0, 0.1f),
            .up_bias = Floats(kFfn, 0, 0.1f),
            .down_bias = Floats(kHidden, 0, 0.1f),
            .cache = Bf16(size_t{kCacheBlocks} * 2 * kHidden * kPagedKvTokens, 1)};
  }
  // Block numbers of a sequence, in no order.
  std::vector<int32_t> MakeTable() {
    std::vector<int32_t> table(kCacheBlocks);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), random_);
    return table;
  }

  // So many layers at each of the contexts.
  void CheckLayers(int count, const std::vector<int>& contexts);

  std::mt19937 random_{7};
};

size_t CacheIndex(int block, int which, int head, int slot, int d) {
  return (((size_t{1} * block * 2 + which) * kHeads + head) * kPagedKvTokens + slot) * kHeadDim + d;
}

Doubles LayerNorm(const Doubles& x, const std::vector<float>& weight,
                  const std::vector<float>& bias) {
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / kHidden;
  double variance = 0;
  for (double value : x) variance += (value - mean) * (value - mean) / kHidden;
  Doubles y(kHidden);
  for (int i = 0; i < kHidden; ++i) {
    y[i] = Rounded((x[i] - mean) / std::sqrt(variance + kEpsilon) * weight[i] + bias[i]);
  }
  return y;
}

Doubles Linear(const Doubles& x, const std::vector<BFloat16>& weight,
               const std::vector<float>& bias) {
  Doubles y(bias.begin(), bias.end());
  for (size_t n = 0; n < y.size(); ++n) {
    for (size_t k = 0; k < x.size(); ++k) y[n] += x[k] * ToFloat(weight[n * x.size() + k]);
  }
  return y;
}

// x += attention(LN1(x)); stores the new token's K and V in the layer's cache.
void ReferenceAttention(Layer* layer, const std::vector<int32_t>& table, int context, Doubles* x) {
  Doubles qkv = Linear(LayerNorm(*x, layer->norm1, layer->norm1_bias), layer->qkv, layer->qkv_bias);
  for (double& value : qkv) value = Rounded(value);
  for (int which = 0; which < 2; ++which) {
    for (int i = 0; i < kHidden; ++i) {
      layer->cache[CacheIndex(table[context / kPagedKvTokens], which, i / kHeadDim,
                              context % kPagedKvTokens, i % kHeadDim)] =
          ToBFloat16(static_cast<float>(qkv[(1 + which) * kHidden + i]));
    }
  }
  Doubles attention(kHidden);
  for (int head = 0; head < kHeads; ++head) {
    Doubles scores(context + 1);
    for (int p = 0; p <= context; ++p) {
      for (int d = 0; d < kHeadDim; ++d) {
        scores[p] += qkv[head * kHeadDim + d] / std::sqrt(1.0 * kHeadDim) *
                     ToFloat(layer->cache[CacheIndex(table[p / kPagedKvTokens], 0, head,
                                                     p % kPagedKvTokens, d)]);
      }
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - max);
    for (int p = 0; p <= context; ++p) {
      for (int d = 0; d < kHeadDim; ++d) {
        attention[head * kHeadDim + d] +=
            scores[p] / total *
            ToFloat(layer->cache[CacheIndex(table[p / kPagedKvTokens], 1, head, p % kPagedKvTokens,
                                            d)]);
      }
    }
  }
  for (double& value : attention) value = Rounded(value);
  const Doubles out = Linear(attention, layer->out, layer->out_bias);
  for (int i = 0; i < kHidden; ++i) (*x)[i] += out[i];
}

void ReferenceMlp(const Layer& layer, bool erf, Doubles* x) {
  Doubles hidden = Linear(LayerNorm(*x, layer.norm2, layer.norm2_bias), layer.up, layer.up_bias);
  for (double& r : hidden) {
    r = Rounded(erf ? 0.5 * r * (1 + std::erf(r / std::sqrt(2.0)))
                    : 0.5 * r * (1 + std::tanh(std::sqrt(2 / M_PI) * (r + 0.044715 * r * r * r))));
  }
  const Doubles out = Linear(hidden, layer.down, layer.down_bias);
  for (int i = 0; i < kHidden; ++i) (*x)[i] += out[i];
}

// The layers on the device, run as one step.
class DeviceLayers {
 public:
  static absl::StatusOr<DeviceLayers> Create(const std::vector<Layer>& layers,
                                             const std::vector<int32_t>& table, int context,
                                             const std::vector<float>& x, bool erf,
                                             const CudaStream& stream) {
    DeviceLayers made;
    made.erf_ = erf;
    for (const Layer& layer : layers) {
      Arrays& arrays = made.layers_.emplace_back();
      ASSIGN_OR_RETURN(arrays.packed_attention,
                       DeviceBuffer<BFloat16>::Create(kPackedAttentionElements));
      ASSIGN_OR_RETURN(arrays.packed_mlp, DeviceBuffer<BFloat16>::Create(kPackedMlpElements));
      ASSIGN_OR_RETURN(const auto qkv, DeviceBuffer<BFloat16>::From(layer.qkv));
      ASSIGN_OR_RETURN(const auto out, DeviceBuffer<BFloat16>::From(layer.out));
      ASSIGN_OR_RETURN(const auto up, DeviceBuffer<BFloat16>::From(layer.up));
      ASSIGN_OR_RETURN(const auto down, DeviceBuffer<BFloat16>::From(layer.down));
      RETURN_IF_ERROR(
          PackAttentionBlock(qkv.data(), out.data(), arrays.packed_attention.data(), stream.get()));
      RETURN_IF_ERROR(PackMlpBlock(up.data(), down.data(), arrays.packed_mlp.data(), stream.get()));
      RETURN_IF_ERROR(stream.Synchronize());
      ASSIGN_OR_RETURN(arrays.cache, DeviceBuffer<BFloat16>::From(layer.cache));
      const std::vector<float>* const sources[] = {
          &layer.norm1,    &layer.norm1_bias, &layer.norm2,   &layer.norm2_bias,
          &layer.qkv_bias, &layer.out_bias,   &layer.up_bias, &layer.down_bias};
      for (int i = 0; i < 8; ++i) {
        ASSIGN_OR_RETURN(arrays.vectors[i], DeviceBuffer<float>::From(*sources[i]));
      }
    }
    ASSIGN_OR_RETURN(made.x_, DeviceBuffer<float>::From(x));
    for (auto* buffer : {&made.after_attention_, &made.after_mlp_, &made.result_}) {
      ASSIGN_OR_RETURN(*buffer, DeviceBuffer<float>::Create(kHidden));
    }
    ASSIGN_OR_RETURN(made.heads_, DeviceBuffer<float>::Create(kHeads * kHidden));
    ASSIGN_OR_RETURN(made.slices_, DeviceBuffer<float>::Create(kMlpPartials * kHidden));
    ASSIGN_OR_RETURN(made.table_, DeviceBuffer<int32_t>::From(table));
    ASSIGN_OR_RETURN(made.context_, DeviceBuffer<int32_t>::From(std::vector<int32_t>{context}));
    return made;
  }

  absl::Status Run(const CudaStream& stream) const {
    ResidualInput in = {.x = x_.data()};
    for (const Arrays& layer : layers_) {
      RETURN_IF_ERROR(AttentionBlock({.in = in,
                                      .norm_weight = layer.vectors[0].data(),
                                      .norm_bias = layer.vectors[1].data(),
                                      .epsilon = kEpsilon,
                                      .packed = layer.packed_attention.data(),
                                      .qkv_bias = layer.vectors[4].data(),
                                      .kv = {.type = ComputeType::kBFloat16,
                                             .heads = kHeads,
                                             .head_dim = kHeadDim,
                                             .base = layer.cache.data(),
                                             .block_tables = table_.data(),
                                             .table_stride = kCacheBlocks},
                                      .context = context_.data(),
                                      .x_out = after_attention_.data(),
                                      .partials_out = heads_.data()},
                                     stream.get()));
      RETURN_IF_ERROR(MlpBlock({.in = {.x = after_attention_.data(),
                                       .partials = heads_.data(),
                                       .bias = layer.vectors[5].data()},
                                .norm_weight = layer.vectors[2].data(),
                                .norm_bias = layer.vectors[3].data(),
                                .epsilon = kEpsilon,
                                .gelu_erf = erf_,
                                .packed = layer.packed_mlp.data(),
                                .up_bias = layer.vectors[6].data(),
                                .x_out = after_mlp_.data(),
                                .partials_out = slices_.data()},
                               stream.get()));
      in = {.x = after_mlp_.data(), .partials = slices_.data(), .bias = layer.vectors[7].data()};
    }
    return FinishBlocks(in, result_.data(), stream.get());
  }

  const DeviceBuffer<float>& result() const { return result_; }
  const DeviceBuffer<BFloat16>& cache(int layer) const { return layers_[layer].cache; }

 private:
  struct Arrays {
    DeviceBuffer<BFloat16> packed_attention, packed_mlp, cache;
    DeviceBuffer<float> vectors[8];  // as in Create
  };

  bool erf_ = false;
  std::vector<Arrays> layers_;
  DeviceBuffer<float> x_, after_attention_, after_mlp_, result_, heads_, slices_;
  DeviceBuffer<int32_t> table_, context_;
};

void DecodeBlockGpuTest::CheckLayers(int count, const std::vector<int>& contexts) {
  std::vector<Layer> fresh;
  fresh.reserve(count);
  for (int i = 0; i < count; ++i) fresh.push_back(MakeLayer());
  const std::vector<int32_t> table = MakeTable();
  for (const int context : contexts) {
    const bool erf = context % 2 == 1;
    SCOPED_TRACE("context " + std::to_string(context));
    std::vector<Layer> layers = fresh;
    std::vector<float> x = Floats(kHidden, 0.5f, 1);
    // The slices that the blocks of a cluster add up have different means.
    for (int i = 0; i < kHidden; ++i) x[i] += 0.005f * i;
    auto device = DeviceLayers::Create(layers, table, context, x, erf, stream_);
    ASSERT_TRUE(device.ok()) << device.status();
    const absl::Status ran = device->Run(stream_);
    ASSERT_TRUE(ran.ok()) << ran;
    const std::vector<float> got = FromDevice(device->result());

    Doubles want(x.begin(), x.end());
    for (Layer& layer : layers) {
      ReferenceAttention(&layer, table, context, &want);
      ReferenceMlp(layer, erf, &want);
    }
    for (int i = 0; i < kHidden; ++i) ASSERT_NEAR(got[i], want[i], 0.02) << i;
    for (size_t l = 0; l < layers.size(); ++l) {
      const std::vector<BFloat16> cache = FromDevice(device->cache(l));
      int changed = 0;
      for (size_t i = 0; i < cache.size(); ++i) {
        changed += cache[i].bits != fresh[l].cache[i].bits;
        ASSERT_NEAR(ToFloat(cache[i]), ToFloat(layers[l].cache[i]), 0.05) << "layer " << l;
      }
      EXPECT_LE(changed, 2 * kHidden) << "only the new token's slots are written";
    }
  }
}

// What the sanitizers run.
TEST_F(DecodeBlockGpuTest, AFewSmallShapes) { CheckLayers(1, {0, 257}); }

TEST_F(DecodeBlockGpuTest, LayersMatchTheReferenceAtEdgeContexts) {
  CheckLayers(2, {0, 1, 15, 16, 17, 127, 128, 255, 256, 257, 1000, 2047});
}

TEST_F(DecodeBlockGpuTest, AGraphGivesTheSameBitsEachTime) {
  const std::vector<Layer> layers(6, MakeLayer());
  const std::vector<float> x = Floats(kHidden, 0, 1);
  auto device = DeviceLayers::Create(layers, MakeTable(), 300, x, false, stream_);
  ASSERT_TRUE(device.ok()) << device.status();
  const auto graph = CudaGraph::Capture(stream_, [&] { return device->Run(stream_); });
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::vector<float> first;
  for (int run = 0; run < 20; ++run) {
    ASSERT_TRUE(graph->Launch(stream_).ok());
    const std::vector<float> got = FromDevice(device->result());
    if (run == 0) first = got;
    ASSERT_EQ(got, first) << "run " << run;
  }
}

TEST(DecodeBlockTest, OnlyTheBaseShapeOnALargeDeviceHasBlocks) {
  const auto has = [](ComputeType type, int hidden, int heads, int ffn, int positions, int sms,
                      size_t shared, bool hopper = true) {
    CudaDevice device;
    device.hopper = hopper;
    device.multiprocessors = sms;
    device.shared_memory_per_block = shared;
    return HasDecodeBlocks(type, hidden, heads, ffn, positions, device);
  };
  constexpr auto kBf16 = ComputeType::kBFloat16;
  EXPECT_TRUE(has(kBf16, 768, 12, 3072, 2048, 132, 232448));
  EXPECT_TRUE(has(kBf16, 768, 12, 3072, 1024, 132, 232448));
  EXPECT_FALSE(has(ComputeType::kFloat32, 768, 12, 3072, 2048, 132, 232448));
  EXPECT_FALSE(has(kBf16, 1024, 16, 4096, 2048, 132, 232448));
  EXPECT_FALSE(has(kBf16, 768, 6, 3072, 2048, 132, 232448));
  EXPECT_FALSE(has(kBf16, 768, 12, 768, 2048, 132, 232448));
  EXPECT_FALSE(has(kBf16, 768, 12, 3072, 4096, 132, 232448));
  EXPECT_FALSE(has(kBf16, 768, 12, 3072, 2048, 108, 232448)) << "too few multiprocessors";
  EXPECT_FALSE(has(kBf16, 768, 12, 3072, 2048, 132, 166912)) << "too little shared memory";
  EXPECT_FALSE(has(kBf16, 768, 12, 3072, 2048, 132, 232448, false)) << "other instructions";
}

TEST(DecodeBlockTest, RefusesWhatIsMissingUnalignedOrInPlace) {
  alignas(16) float memory[8] = {};
  const auto code = [](const absl::Status& status) { return status.code(); };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code(FinishBlocks({.x = memory, .partials = memory, .bias = memory}, memory, nullptr)),
            kInvalid)
      << "in place";
  EXPECT_EQ(code(FinishBlocks({.x = memory}, memory + 4, nullptr)), kInvalid) << "no partials";
  EXPECT_EQ(code(MlpBlock({.in = {.x = memory}, .x_out = memory + 4}, nullptr)), kInvalid);
  EXPECT_EQ(code(AttentionBlock({.in = {.x = memory + 1}, .x_out = memory + 4}, nullptr)),
            kInvalid);
  const auto* const odd = reinterpret_cast<const BFloat16*>(memory) + 1;
  EXPECT_EQ(code(PackMlpBlock(odd, odd, nullptr, nullptr)), kInvalid);
  EXPECT_EQ(code(PackAttentionBlock(odd, odd, nullptr, nullptr)), kInvalid);
}

}  // namespace
}  // namespace hanlin
