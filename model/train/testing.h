// For tests of training: the device under test, small random models and batches, and runs over
// tensor- and data-parallel ranks that are threads of this process.
#ifndef HANLIN_MODEL_TRAIN_TESTING_H_
#define HANLIN_MODEL_TRAIN_TESTING_H_

#include <filesystem>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "common/testing/testing.h"
#include "model/comm/testing.h"
#include "model/train/train_model.h"

namespace hanlin::testing {

// The tests of this folder run once for each device, in a program of its own that is linked with
// its maker of models: testing_cpu.cc, cuda/testing_cuda.cc (fp32; skips without a GPU).
absl::StatusOr<std::unique_ptr<TrainModel>> MakeTestedModel(const TrainModelOptions& options,
                                                            ThreadPool& pool);
inline ModelConfig SmallConfig() {
  ModelConfig config;
  config.name = "small";
  config.layout = ModelLayout::kHuggingFaceGpt2;
  config.vocab_size = 48;
  config.hidden_size = 32;
  config.num_layers = 2;
  config.num_heads = 4;
  config.head_dim = 8;
  config.ffn_size = 64;
  config.max_positions = 40;
  return config;
}

// Random ids; the first `masked` labels of every row do not count, the others share a weight of 1.
inline TrainBatch RandomBatch(const ModelConfig& config, int64_t sequences, int64_t length,
                              int64_t masked, uint32_t seed) {
  std::mt19937 engine(seed);
  TrainBatch batch = {.sequences = sequences, .length = length};
  for (int64_t i = 0; i < sequences * length; ++i) {
    batch.tokens.push_back(static_cast<int32_t>(engine() % config.vocab_size));
    batch.labels.push_back(static_cast<int32_t>(engine() % config.vocab_size));
    batch.positions.push_back(static_cast<int32_t>(i % length));
    const int64_t counted = sequences * (length - masked);
    batch.weights.push_back(i % length < masked ? 0 : 1.0f / static_cast<float>(counted));
  }
  return batch;
}

// The model under test with weights of its own.
inline std::unique_ptr<TrainModel> MakeLoadedModel(const TrainModelOptions& options,
                                                   ThreadPool& pool) {
  auto model = MakeTestedModel(options, pool).value();
  EXPECT_OK(LoadParameters(*Checkpoint::Random(options.config, 3), *model));
  return model;
}

inline double WeightedLoss(const TrainBatch& batch, const std::vector<float>& losses) {
  double sum = 0;
  for (size_t i = 0; i < losses.size(); ++i) sum += double{batch.weights[i]} * losses[i];
  return sum;
}

inline TrainModelOptions WithDropout() {
  TrainModelOptions options = {.config = SmallConfig()};
  options.dropout = {0.1f, 0.2f, 0.15f};
  options.seed = 77;
  return options;
}

// Runs body(tensor, data, dp_rank) on tp * dp threads, each with both of its communicators.
inline void RunGrid(int tp, int dp,
                    const std::function<void(Communicator& tensor, Communicator& data, int tp_rank,
                                             int dp_rank)>& body) {
  const TempDir directory;
  std::vector<std::thread> threads;
  for (int t = 0; t < tp; ++t)
    std::filesystem::create_directory(fmt::format("{}/d{}", directory.path(), t));
  for (int d = 0; d < dp; ++d)
    std::filesystem::create_directory(fmt::format("{}/t{}", directory.path(), d));
  for (int d = 0; d < dp; ++d) {
    for (int t = 0; t < tp; ++t) {
      threads.emplace_back([&, d, t] {
        auto tensor =
            JoinTestGroup(fmt::format("{}/t{}", directory.path(), d), t, tp, absl::Seconds(60));
        ASSERT_TRUE(tensor.ok()) << tensor.status();
        auto data =
            JoinTestGroup(fmt::format("{}/d{}", directory.path(), t), d, dp, absl::Seconds(60));
        ASSERT_TRUE(data.ok()) << data.status();
        body(**tensor, **data, t, d);
      });
    }
  }
  for (std::thread& thread : threads) thread.join();
}

inline std::vector<float> ReadAll(const TrainModel& model, TrainState state) {
  const bool moment = state == TrainState::kMoment1 || state == TrainState::kMoment2;
  const TrainModel::Range owned = model.OwnedRange();
  std::vector<float> values(moment ? owned.end - owned.begin : model.layout().size());
  EXPECT_OK(model.ReadState(state, moment ? owned.begin : 0, values));
  return values;
}

// The whole summed gradient, of which a replica with ZeRO-1 holds its part. On all of them at once.
inline std::vector<float> ReadSummedGradients(const TrainModel& model) {
  std::vector<float> values = ReadAll(model, TrainState::kGradients);
  Communicator* const data = model.options().data;
  if (data == nullptr || !model.options().zero) return values;
  const ParameterLayout& layout = model.layout();
  EXPECT_OK(data->AllGather(values, layout.Cuts({0, layout.size()}, data->size())));
  return values;
}

}  // namespace hanlin::testing

#endif  // HANLIN_MODEL_TRAIN_TESTING_H_
