// The report of a model folder against the folder, for every golden model.
#include "model/inspect/inspect.h"

#include <filesystem>

#include "common/io/file.h"
#include "common/testing/testing.h"
#include "model/checkpoint/checkpoint.h"

namespace hanlin {
namespace {

using ::testing::AllOf;
using testing::GoldenCases;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST(Inspect, DescribesEveryGoldenFolder) {
  for (const std::string kind : {"modelscope", "hf"}) {
    for (const std::string& folder : GoldenCases(kind)) {
      if (!FileExists(folder + "/config.json")) continue;
      SCOPED_TRACE(folder);
      ASSERT_OK_AND_ASSIGN(const ModelInspection report, InspectFolder(folder));
      EXPECT_GE(report.tensors.size(), AllTensors(report.config).size() * report.num_shards);
      EXPECT_NE(report.dtype, "mixed");
      for (const FileInfo& file : report.files) {
        EXPECT_EQ(static_cast<uint64_t>(file.bytes),
                  std::filesystem::file_size(folder + "/" + file.path));
      }
      const std::string text = ToText(report, /*all_tensors=*/true);
      for (const TensorInfo& tensor : report.tensors) EXPECT_THAT(text, HasSubstr(tensor.name));
      const nlohmann::json json = ToJson(report);
      EXPECT_EQ(json["config"]["num_parameters"], report.config.num_parameters());
      EXPECT_EQ(json["tensors"].size(), report.tensors.size());
    }
  }
}

TEST(Inspect, MemoryOfAPresetFollowsFromItsSizes) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Preset("base"));
  const ModelInspection report = InspectConfig(config);
  ASSERT_EQ(report.memory.size(), 6u) << "degrees 1, 2 and 4 in two types";
  for (const MemoryNeed& need : report.memory) {
    const uint64_t bytes = need.type == ComputeType::kFloat32 ? 4 : 2;
    // 12 layers of keys and values of 768.
    EXPECT_EQ(need.kv_bytes_per_token, 2 * 12 * 768 * bytes / static_cast<uint64_t>(need.tp_size));
    EXPECT_GE(need.kv_bytes_per_context, 2048 * need.kv_bytes_per_token);
    const uint64_t least = static_cast<uint64_t>(config.num_parameters()) * bytes / need.tp_size;
    EXPECT_GE(need.weight_bytes, least);
    EXPECT_LE(need.weight_bytes, least + (uint64_t{16} << 20))
        << "positions and vectors are copies";
  }
  EXPECT_THAT(ToText(report, false),
              AllOf(HasSubstr("base: 106289664 parameters"), HasSubstr("tp 4")));
}

TEST(Inspect, ReportsWhatIsWrongWithAFolder) {
  EXPECT_THAT(InspectFolder("/nonexistent"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent")));
}

}  // namespace
}  // namespace hanlin
