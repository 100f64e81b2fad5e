// The golden training cases: per-token losses, every gradient, AdamW runs with clipping and
// accumulation, all-masked batches, perplexities.
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/io/file.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/weight_map.h"
#include "model/train/testing.h"

namespace hanlin {
namespace {

using nlohmann::json;
using testing::GoldenCases;
using testing::ReadAll;

struct GoldenCase {
  std::string directory;
  ModelConfig config;
  json expected;
  StoredTensors arrays;

  const float* Array(const std::string& name) const {
    return reinterpret_cast<const float*>(arrays.at(name).data);
  }
};

std::vector<GoldenCase> TrainingCases() {
  std::vector<GoldenCase> cases;
  for (const std::string& directory : GoldenCases("modelscope")) {
    const auto text = ReadFile(directory + "/expected.json");
    GoldenCase golden;
    golden.directory = directory;
    golden.expected = json::parse(text.value(), nullptr, false);
    if (!golden.expected.contains("gradients")) continue;
    golden.config = LoadModelConfig(directory).value();
    golden.arrays = ReadSafetensors(directory + "/expected.safetensors").value();
    cases.push_back(std::move(golden));
  }
  return cases;
}

// The micro-batch of a stored batch; its weights make the gradient that of `scale` times the mean
// loss.
TrainBatch MakeBatch(const GoldenCase& golden, const std::string& name, double scale = 1) {
  TrainBatch batch;
  std::vector<float> mask;
  for (const int index : golden.expected["batches"][name]["samples"]) {
    const json& sample = golden.expected["samples"][index];
    const auto tokens = sample["tokens"].get<std::vector<int32_t>>();
    const auto labels = sample["labels"].get<std::vector<int32_t>>();
    const int prompt = sample["prompts_len"];
    batch.length = static_cast<int64_t>(tokens.size());
    ++batch.sequences;
    batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
    batch.labels.insert(batch.labels.end(), labels.begin(), labels.end());
    for (int t = 0; t < batch.length; ++t) {
      batch.positions.push_back(t);
      const bool counts = sample.contains("inputs_len")
                              ? t >= prompt - 1 && t < sample["inputs_len"].get<int>() - 1
                              : t < prompt;
      mask.push_back(counts ? 1 : 0);
    }
  }
  double count = 0;
  for (const float m : mask) count += m;
  for (const float m : mask) batch.weights.push_back(count == 0 ? 0 : m * scale / count);
  EXPECT_EQ(count, golden.expected["batches"][name]["loss_tokens"].get<double>());
  return batch;
}

double MeanLoss(const TrainBatch& batch, const std::vector<float>& losses) {
  double sum = 0, count = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    sum += batch.weights[i] != 0 ? losses[i] : 0;
    count += batch.weights[i] != 0 ? 1 : 0;
  }
  return count == 0 ? 0 : sum / count;
}

std::unique_ptr<TrainModel> MakeModel(const GoldenCase& golden, ThreadPool& pool,
                                      float weight_decay) {
  TrainModelOptions options = {.config = golden.config};
  options.weight_decay.assign(AllTensors(golden.config).size(), weight_decay);
  auto model = testing::MakeTestedModel(options, pool).value();
  EXPECT_OK(LoadParameters(*Checkpoint::Open(golden.directory, golden.config).value(), *model));
  return model;
}

// Element (row, column) of a canonical tensor in the stored order of layout A.
struct StoredOrder {
  const ModelConfig& config;
  TensorRole role;
  int64_t Row(int64_t canonical) const {
    if (role != TensorRole::kQkvWeight && role != TensorRole::kQkvBias) return canonical;
    const int64_t h = config.hidden_size, d = config.head_dim;
    return canonical % h / d * 3 * d + canonical / h * d + canonical % d;
  }
};

void ExpectTensor(const GoldenCase& golden, const ParameterSlot& slot, const float* got,
                  const float* want, double tolerance, const std::string& what) {
  const StoredOrder order = {golden.config, slot.id.role};
  for (int64_t row = 0; row < slot.shape.rows; ++row) {
    const bool key_bias = slot.id.role == TensorRole::kQkvBias && what.starts_with("final") &&
                          row / golden.config.hidden_size == 1;
    if (key_bias) continue;  // rounding noise that Adam blew up
    for (int64_t column = 0; column < slot.shape.cols; ++column) {
      ASSERT_NEAR(got[row * slot.shape.cols + column],
                  want[order.Row(row) * slot.shape.cols + column], tolerance)
          << what << " " << ToString(slot.id) << " [" << row << ", " << column << "]";
    }
  }
}

double L2(const float* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{x[i]} * x[i];
  return std::sqrt(sum);
}

TEST(TrainGolden, ThereAreCases) { EXPECT_FALSE(TrainingCases().empty()); }

TEST(TrainGolden, PerTokenLossesAndPerplexities) {
  ThreadPool pool(2);
  for (const GoldenCase& golden : TrainingCases()) {
    const auto model = MakeModel(golden, pool, 0);
    for (const auto& [name, stored] : golden.expected["batches"].items()) {
      const TrainBatch batch = MakeBatch(golden, name);
      std::vector<float> losses(batch.tokens.size());
      ASSERT_OK(model->Evaluate(batch, /*all=*/true, losses));
      const float* want = golden.Array(stored["ce"].get<std::string>());
      for (size_t i = 0; i < losses.size(); ++i) ASSERT_NEAR(losses[i], want[i], 1e-4) << name;
      const double loss = stored["loss"];
      EXPECT_NEAR(MeanLoss(batch, losses), loss, 1e-5 * loss) << name;
    }
  }
}

TEST(TrainGolden, EveryGradient) {
  ThreadPool pool(2);
  for (const GoldenCase& golden : TrainingCases()) {
    const auto model = MakeModel(golden, pool, 0);
    for (const auto& [name, stored] : golden.expected["gradients"].items()) {
      const TrainBatch batch = MakeBatch(golden, name);
      std::vector<float> losses(batch.tokens.size());
      model->ZeroGradients();
      ASSERT_OK(model->ForwardBackward(batch, 0, losses));
      const double loss = stored["loss"];
      EXPECT_NEAR(MeanLoss(batch, losses), loss, 1e-5 * loss) << name;
      const std::vector<float> gradients = ReadAll(*model, TrainState::kGradients);
      for (const ParameterSlot& slot : model->layout().slots()) {
        const float* got = gradients.data() + slot.offset;
        const std::string parameter = StoredName(golden.config.layout, slot.id);
        const double l2 = stored["l2"][parameter];
        EXPECT_NEAR(L2(got, slot.shape.size()), l2, 1e-4 * std::max(1.0, l2)) << parameter;
        if (stored.contains("all_zero")) continue;
        const float* want = golden.Array("grad." + name + "." + parameter);
        double largest = 1;
        for (int64_t i = 0; i < slot.shape.size(); ++i) {
          largest = std::max(largest, std::abs(double{want[i]}));
        }
        ExpectTensor(golden, slot, got, want, 1e-4 * largest, "gradient " + name);
      }
    }
  }
}

// Follows a stored run; returns the final parameters.
std::vector<float> FollowRun(const GoldenCase& golden, const json& run, TrainModel& model) {
  const int every = run["cumulative_iters"];
  const json& clip = run["grad_clip_max_norm"];
  int64_t step = 0;
  model.ZeroGradients();
  for (size_t i = 0; i < run["batches"].size(); ++i) {
    const TrainBatch batch = MakeBatch(golden, run["batches"][i], 1.0 / every);
    std::vector<float> losses(batch.tokens.size());
    EXPECT_OK(model.ForwardBackward(batch, 0, losses));
    const double want = run["losses"][i];
    EXPECT_NEAR(MeanLoss(batch, losses), want, 1e-5 * want) << "iteration " << i;
    if ((i + 1) % every != 0) continue;
    EXPECT_OK(model.ReduceGradients());
    double scale = 1;
    if (!clip.is_null()) {
      const double norm = model.GradientNorm().value();
      const double stored = run["grad_norms"][step];
      EXPECT_NEAR(norm, stored, 1e-4 * stored);
      scale = std::min(1.0, clip.get<double>() / (norm + 1e-6));
    }
    const double lr = run["lrs"][step];
    EXPECT_OK(model.Update(lr, static_cast<float>(scale), ++step));
    model.ZeroGradients();
  }
  return ReadAll(model, TrainState::kParameters);
}

TEST(TrainGolden, OptimizerRuns) {
  ThreadPool pool(2);
  for (const GoldenCase& golden : TrainingCases()) {
    for (const auto& [name, run] : golden.expected["runs"].items()) {
      const auto model =
          MakeModel(golden, pool, golden.expected["optimizer"]["weight_decay"].get<float>());
      const std::vector<float> initial = ReadAll(*model, TrainState::kParameters);
      const std::vector<float> final = FollowRun(golden, run, *model);
      for (const ParameterSlot& slot : model->layout().slots()) {
        const std::string parameter = StoredName(golden.config.layout, slot.id);
        const json& sums = run["final"][parameter];
        double l2 = 0, sum = 0, delta = 0;
        for (int64_t i = 0; i < slot.shape.size(); ++i) {
          const bool key_bias =
              slot.id.role == TensorRole::kQkvBias && i / golden.config.hidden_size == 1;
          if (key_bias) continue;
          const double value = final[slot.offset + i];
          l2 += value * value;
          sum += value;
          delta += std::pow(value - initial[slot.offset + i], 2);
        }
        EXPECT_NEAR(std::sqrt(l2), sums["l2"].get<double>(), 5e-5) << name << " " << parameter;
        EXPECT_NEAR(sum, sums["sum"].get<double>(), 2e-4) << name << " " << parameter;
        EXPECT_NEAR(std::sqrt(delta), sums["delta_l2"].get<double>(), 5e-5)
            << name << " " << parameter;
        const auto array = golden.arrays.find("final." + name + "." + parameter);
        if (array == golden.arrays.end()) continue;
        ExpectTensor(golden, slot, final.data() + slot.offset,
                     reinterpret_cast<const float*>(array->second.data), 3e-5, "final " + name);
      }
    }
  }
}

}  // namespace
}  // namespace hanlin
