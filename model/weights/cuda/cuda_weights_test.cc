// Weights on the device hold exactly what the checkpoint says, rounded once, on every rank.
#include "model/weights/cuda/cuda_weights.h"

#include <cstring>

#include "common/cuda/testing.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

ModelConfig OddConfig() {
  ModelConfig config;
  config.vocab_size = 6012;
  config.hidden_size = 216;  // rows that are no multiple of 256 bytes, a vocabulary of pieces
  config.num_layers = 3;
  config.num_heads = 6;
  config.head_dim = 36;
  config.ffn_size = 100;
  config.max_positions = 33;
  return config;
}

std::vector<float> Slice(const Checkpoint& checkpoint, TensorId id, int rank, int size) {
  std::vector<float> values(LocalShape(checkpoint.config(), id.role, size).size());
  EXPECT_OK(checkpoint.Read(id, rank, size, values.data()));
  return values;
}

template <typename T>
std::vector<T> Download(const void* data, size_t count) {
  std::vector<T> values(count);
  EXPECT_EQ(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost),
            cudaSuccess);
  return values;
}

void ExpectMatrix(const CudaMatrix& matrix, ComputeType type, const std::vector<float>& want) {
  ASSERT_EQ(matrix.n * matrix.k, std::ssize(want));
  if (type == ComputeType::kFloat32) {
    EXPECT_EQ(Download<float>(matrix.data, want.size()), want);
    return;
  }
  const auto got = Download<BFloat16>(matrix.data, want.size());
  for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(got[i].bits, ToBFloat16(want[i]).bits) << i;
}

void ExpectVector(const CudaVector& vector, bool is_bias, const std::vector<float>& want) {
  EXPECT_EQ(Download<float>(vector.data, want.size()), want);
  ASSERT_EQ(vector.bf16 != nullptr, is_bias);
  if (!is_bias) return;
  const auto got = Download<BFloat16>(vector.bf16, want.size());
  for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(got[i].bits, ToBFloat16(want[i]).bits) << i;
}

struct Params {
  ComputeType type;
  int tp_size;
  int threads;
};
class CudaWeightsTest : public GpuTest, public ::testing::WithParamInterface<Params> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaWeightsTest,
                         ::testing::Values(Params{ComputeType::kFloat32, 1, 1},
                                           Params{ComputeType::kBFloat16, 1, 4},
                                           Params{ComputeType::kBFloat16, 2, 3}));

TEST_P(CudaWeightsTest, HoldTheRanksSlice) {
  const auto checkpoint = Checkpoint::Random(OddConfig(), 5);
  ThreadPool pool(GetParam().threads);
  const int size = GetParam().tp_size;
  for (int rank = 0; rank < size; ++rank) {
    ASSERT_OK_AND_ASSIGN(
        const auto weights,
        LoadCudaWeights(*checkpoint, {.type = GetParam().type, .tp_rank = rank, .tp_size = size},
                        device_, &pool));
    EXPECT_EQ(weights->memory.size(), CudaWeightBytes(checkpoint->config(), GetParam().type, size));
    const auto slice = [&](TensorRole role, int layer) {
      return Slice(*checkpoint, {role, layer}, rank, size);
    };
    ExpectMatrix(weights->word_embedding, GetParam().type, slice(TensorRole::kWordEmbedding, 0));
    ExpectVector(weights->position_embedding, false, slice(TensorRole::kPositionEmbedding, 0));
    for (int i = 0; i < 3; ++i) {
      const CudaLayerWeights& layer = weights->layers[i];
      ExpectVector(layer.ln1_weight, false, slice(TensorRole::kLn1Weight, i));
      ExpectMatrix(layer.qkv, GetParam().type, slice(TensorRole::kQkvWeight, i));
      ExpectVector(layer.qkv_bias, true, slice(TensorRole::kQkvBias, i));
      ExpectMatrix(layer.attention_out, GetParam().type, slice(TensorRole::kAttnOutWeight, i));
      ExpectMatrix(layer.mlp_up, GetParam().type, slice(TensorRole::kMlpUpWeight, i));
      ExpectVector(layer.mlp_up_bias, true, slice(TensorRole::kMlpUpBias, i));
      ExpectMatrix(layer.mlp_down, GetParam().type, slice(TensorRole::kMlpDownWeight, i));
    }
    ExpectVector(weights->final_ln_weight, false, slice(TensorRole::kFinalLnWeight, 0));
  }
}

class CudaWeightsMemoryTest : public GpuTest {};

TEST_F(CudaWeightsMemoryTest, TooLittleMemoryIsAnErrorNotACrash) {
  ModelConfig config = OddConfig();
  config.hidden_size = 1 << 15;
  config.num_heads = 1 << 9;
  config.head_dim = 64;
  config.ffn_size = 1 << 17;
  config.num_layers = 96;
  ThreadPool pool(1);
  const auto weights = LoadCudaWeights(*Checkpoint::Random(config),
                                       {.type = ComputeType::kBFloat16}, device_, &pool);
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kResourceExhausted) << weights.status();
}

}  // namespace
}  // namespace hanlin
