// Both perplexities of the golden training cases; sharing the work changes neither.
#include "trainer/loop/evaluate.h"

#include <nlohmann/json.hpp>

#include "common/io/file.h"
#include "model/train/testing.h"

namespace hanlin {
namespace {

// The samples of the batches that the stored perplexities are over.
SampleStore StoredSamples(const nlohmann::json& expected) {
  SampleStore store;
  for (const auto& name : expected["ppl"]["batches"]) {
    for (const int index : expected["batches"][name.get<std::string>()]["samples"]) {
      const auto& sample = expected["samples"][index];
      const bool has_target = sample.contains("inputs_len");
      store.Add(sample["src"].get<std::vector<int32_t>>(),
                has_target ? sample["tgt"].get<std::vector<int32_t>>() : std::vector<int32_t>(),
                has_target);
    }
  }
  return store;
}

TEST(EvaluateTest, GoldenPerplexitiesForAnyNumberOfReplicas) {
  int checked = 0;
  for (const std::string& directory : testing::GoldenCases("modelscope")) {
    const auto json =
        nlohmann::json::parse(ReadFile(directory + "/expected.json").value(), nullptr, false);
    if (!json.contains("ppl")) continue;
    const SampleStore store = StoredSamples(json);
    const SampleRules rules = {json["sequence_length"], json["sep_id"], false};
    for (const int replicas : {1, 2, 3}) {
      testing::RunRanks(replicas, [&](Communicator& data) {
        ThreadPool pool(1);
        TrainModelOptions options;
        options.config = LoadModelConfig(directory).value();
        options.data = &data;
        const auto model = MakeCpuTrainModel(options, pool).value();
        ASSERT_OK(LoadParameters(*Checkpoint::Open(directory, options.config).value(), *model));
        for (const bool modelscope : {false, true}) {
          const int64_t length_step = modelscope ? 1 : 16;  // padding changes no number
          ASSERT_OK_AND_ASSIGN(const EvaluationResult result,
                               EvaluateSamples(*model, rules, store, 2, length_step, modelscope));
          const double token = json["ppl"]["ppl_token"], upstream = json["ppl"]["ppl_upstream"];
          EXPECT_NEAR(result.ppl, token, 1e-4 * token);
          EXPECT_EQ(result.labels, json["ppl"]["loss_tokens"].get<int64_t>());
          ASSERT_EQ(result.ppl_modelscope.has_value(), modelscope);
          if (!modelscope) continue;
          EXPECT_NEAR(*result.ppl_modelscope, upstream, 1e-4 * upstream);
        }
      });
    }
    ++checked;
  }
  EXPECT_GT(checked, 0);
}

}  // namespace
}  // namespace hanlin
