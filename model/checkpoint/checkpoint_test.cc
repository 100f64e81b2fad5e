// Checkpoints as the model sees them: every golden folder opens and reads, slices of any degree are
// the full tensor cut, copies of one model in several containers agree, and folders that disagree
// with their configuration are refused.
#include "model/checkpoint/checkpoint.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/testing/testing.h"
#include "model/checkpoint/weight_map.h"
#include "model/config/json.h"

namespace hanlin {
namespace {

using ::testing::AllOf;
using testing::GoldenCases;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;
namespace fs = std::filesystem;

std::vector<std::string> ModelFolders() {
  std::vector<std::string> folders;
  for (const std::string kind : {"modelscope", "hf"}) {
    for (const std::string& folder : GoldenCases(kind)) {
      if (FileExists(folder + "/config.json")) folders.push_back(folder);
    }
  }
  return folders;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFolder(const std::string& folder) {
  ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(folder));
  return Checkpoint::Open(folder, config);
}

std::vector<float> ReadAll(const Checkpoint& checkpoint, TensorId id, int rank = 0, int size = 1) {
  std::vector<float> values(
      static_cast<size_t>(LocalShape(checkpoint.config(), id.role, size).size()));
  EXPECT_OK(checkpoint.Read(id, rank, size, values.data()));
  return values;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The slice that a rank must get, cut from the full tensor straight from the definition in
// checkpoint.h.
std::vector<float> Slice(const ModelConfig& config, TensorRole role, const std::vector<float>& full,
                         int rank, int size) {
  const TensorShape whole = LocalShape(config, role, 1), local = LocalShape(config, role, size);
  std::vector<float> result;
  for (int64_t row = 0; row < local.rows; ++row) {
    for (int64_t col = 0; col < local.cols; ++col) {
      int64_t r = row, c = col;
      if (SplitOf(role) == TensorSplit::kRows) r += rank * local.rows;
      if (SplitOf(role) == TensorSplit::kColumns) c += rank * local.cols;
      if (SplitOf(role) == TensorSplit::kQkvRows) {
        const int64_t third = local.rows / 3;
        r = row / third * config.hidden_size + rank * third + row % third;
      }
      result.push_back(full[static_cast<size_t>(r * whole.cols + c)]);
    }
  }
  return result;
}

TEST(Checkpoint, EveryGoldenFolderOpensAndItsSlicesAreTheTensorsCut) {
  const auto folders = ModelFolders();
  ASSERT_GE(folders.size(), 13u);
  for (const std::string& folder : folders) {
    SCOPED_TRACE(folder);
    ASSERT_OK_AND_ASSIGN(const auto checkpoint, OpenFolder(folder));
    const ModelConfig& config = checkpoint->config();
    for (const TensorId id : AllTensors(config)) {
      const std::vector<float> full = ReadAll(*checkpoint, id);
      for (const float value : full) ASSERT_TRUE(std::isfinite(value)) << ToString(id);
      for (const int size : AllowedTpSizes(config)) {
        for (int rank = 0; rank < size; ++rank) {
          ASSERT_TRUE(SameBits(ReadAll(*checkpoint, id, rank, size),
                               Slice(config, id.role, full, rank, size)))
              << ToString(id) << " of rank " << rank << " of " << size;
        }
      }
    }
  }
}

TEST(Checkpoint, RowRangesAreTheRowsOfTheSlice) {
  for (const std::string& folder : ModelFolders()) {
    SCOPED_TRACE(folder);
    ASSERT_OK_AND_ASSIGN(const auto checkpoint, OpenFolder(folder));
    const int size = AllowedTpSizes(checkpoint->config()).back();
    for (const TensorId id : AllTensors(checkpoint->config())) {
      const std::vector<float> slice = ReadAll(*checkpoint, id, size - 1, size);
      const TensorShape shape = LocalShape(checkpoint->config(), id.role, size);
      std::vector<float> joined(slice.size());
      for (int64_t row = 0; row < shape.rows; row += 7) {
        const int64_t end = std::min(shape.rows, row + 7);
        ASSERT_OK(
            checkpoint->ReadRows(id, size - 1, size, row, end, joined.data() + row * shape.cols));
      }
      ASSERT_TRUE(SameBits(joined, slice)) << ToString(id);
    }
  }
}

TEST(Checkpoint, FoldersThatHoldTheSameModelGiveTheSameBits) {
  int pairs = 0;
  for (const std::string& folder : ModelFolders()) {
    ASSERT_OK_AND_ASSIGN(const nlohmann::json expected, ReadJsonObject(folder + "/expected.json"));
    if (!expected.contains("same_weights_as")) continue;
    SCOPED_TRACE(folder);
    ASSERT_OK_AND_ASSIGN(const auto one, OpenFolder(folder));
    ASSERT_OK_AND_ASSIGN(
        const auto other,
        OpenFolder((fs::path(folder).parent_path() / expected["same_weights_as"].get<std::string>())
                       .string()));
    for (const TensorId id : AllTensors(one->config())) {
      EXPECT_TRUE(SameBits(ReadAll(*one, id), ReadAll(*other, id))) << ToString(id);
    }
    ++pairs;
  }
  EXPECT_GE(pairs, 2);
}

TEST(Checkpoint, DefaultModelOpens) {
  ASSERT_OK_AND_ASSIGN(const std::string directory, DefaultModelDirectory());
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, OpenFolder(directory));
  const auto embedding = ReadAll(*checkpoint, {TensorRole::kWordEmbedding});
  double squares = 0;
  for (const float value : embedding) squares += value * value;
  EXPECT_GT(squares, 0);
}

TEST(Checkpoint, RefusesArgumentsOutOfRange) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Preset("base"));
  const auto checkpoint = Checkpoint::Random(config);
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  float value = 0;
  EXPECT_THAT(checkpoint->ReadRows({TensorRole::kLn1Bias}, 0, 5, 0, 1, &value),
              StatusIs(kInvalid, HasSubstr("5")));
  EXPECT_THAT(checkpoint->ReadRows({TensorRole::kLn1Bias}, 2, 2, 0, 1, &value),
              StatusIs(kInvalid, HasSubstr("rank")));
  EXPECT_THAT(checkpoint->ReadRows({TensorRole::kLn1Bias, 12}, 0, 1, 0, 1, &value),
              StatusIs(kInvalid, HasSubstr("layer is 12")));
  EXPECT_THAT(checkpoint->ReadRows({TensorRole::kLn1Bias}, 0, 1, 768, 769, &value),
              StatusIs(kInvalid, HasSubstr("768")));
  EXPECT_THAT(checkpoint->ReadRows({TensorRole::kLn1Bias}, 0, 1, -1, 0, &value),
              StatusIs(kInvalid, HasSubstr("-1")));
}

// A copy of a golden folder that a test may damage.
class BadFolderTest : public ::testing::Test {
 protected:
  // The golden folder that holds the most shards of layout A.
  void CopySharded() {
    size_t most = 0;
    std::string source;
    for (const std::string& folder : ModelFolders()) {
      if (!FileExists(folder + "/model")) continue;
      ASSERT_OK_AND_ASSIGN(const auto names, ListDirectory(folder + "/model"));
      if (names.size() > most) {
        most = names.size();
        source = folder;
      }
    }
    ASSERT_GE(most, 4u);
    fs::copy(source, folder(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  }
  void CopyWith(const std::string& file) {
    for (const std::string& source : ModelFolders()) {
      if (!FileExists(source + "/" + file)) continue;
      fs::copy(source, folder(),
               fs::copy_options::recursive | fs::copy_options::overwrite_existing);
      return;
    }
    FAIL() << "no golden folder has " << file;
  }
  // The name of a file that the index names.
  std::string OneShard() const {
    const std::vector<std::string> names = ListDirectory(folder()).value();
    for (const std::string& name : names) {
      if (name.ends_with(".safetensors") && name.starts_with("model-")) return name;
    }
    ADD_FAILURE() << "no shard in " << folder();
    return "";
  }
  std::string folder() const { return folder_.path(); }
  std::string Shard(int rank) const {
    return fmt::format("{}/model/mp_rank_{:02}_model_states.pt", folder(), rank);
  }

  TempDir folder_;
};

TEST_F(BadFolderTest, MissingShardIsNamed) {
  CopySharded();
  fs::remove(Shard(1));
  EXPECT_THAT(OpenFolder(folder()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("mp_rank_01_model_states.pt")));
}

TEST_F(BadFolderTest, MissingLastShardsDisagreeWithTheShapes) {
  CopySharded();
  fs::remove(Shard(3));
  fs::remove(Shard(2));
  EXPECT_THAT(OpenFolder(folder()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("word_embeddings.weight has shape"), HasSubstr("want"))));
}

TEST_F(BadFolderTest, ExtraFileIsNamed) {
  CopySharded();
  folder_.Write("model/optimizer.pt", "x");
  EXPECT_THAT(OpenFolder(folder()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("optimizer.pt")));
}

TEST_F(BadFolderTest, NumberOfShardsMustDivideTheModel) {
  CopySharded();
  fs::copy(Shard(0), Shard(4));
  EXPECT_THAT(OpenFolder(folder()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("5 shards")));
}

TEST_F(BadFolderTest, ReplicatedTensorsMustAgree) {
  CopySharded();
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, OpenFolder(folder()));
  const auto positions = ReadAll(*checkpoint, {TensorRole::kPositionEmbedding});
  ASSERT_OK_AND_ASSIGN(std::string contents, ReadFile(Shard(2)));
  const std::string needle(reinterpret_cast<const char*>(positions.data()), 64);
  const size_t at = contents.find(needle);
  ASSERT_NE(at, std::string::npos);
  contents[at] = static_cast<char>(contents[at] ^ 1);
  folder_.Write("model/" + fs::path(Shard(2)).filename().string(), contents);
  EXPECT_THAT(OpenFolder(folder()),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("mp_rank_02"), HasSubstr("position_embeddings"))));
}

TEST_F(BadFolderTest, ShardsInTheFolderItselfAreFound) {
  CopySharded();
  for (int rank = 0; rank < 4; ++rank) {
    fs::rename(Shard(rank), folder() + "/" + fs::path(Shard(rank)).filename().string());
  }
  fs::remove(folder() + "/model");
  EXPECT_OK(OpenFolder(folder()));
}

TEST_F(BadFolderTest, ShapesMustFitTheConfiguration) {
  CopyWith("model.safetensors");
  ASSERT_OK_AND_ASSIGN(ModelConfig config, LoadModelConfig(folder()));
  ModelConfig wider = config;
  wider.ffn_size *= 2;
  EXPECT_THAT(
      Checkpoint::Open(folder(), wider),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr("mlp.c_fc.weight"),
                     HasSubstr(fmt::format("[{}, {}]", config.hidden_size, config.ffn_size)),
                     HasSubstr(fmt::format("[{}, {}]", config.hidden_size, wider.ffn_size)))));
  ModelConfig deeper = config;
  deeper.num_layers += 1;
  EXPECT_THAT(Checkpoint::Open(folder(), deeper),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has no tensor h.")));
  ModelConfig shallower = config;
  shallower.num_layers -= 1;
  EXPECT_THAT(Checkpoint::Open(folder(), shallower),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is not part of")));
}

TEST_F(BadFolderTest, FolderWithoutWeightsSaysWhatWasLookedFor) {
  CopyWith("model.safetensors");
  fs::remove(folder() + "/model.safetensors");
  EXPECT_THAT(OpenFolder(folder()),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("model.safetensors"), HasSubstr("pytorch_model.bin"))));
}

TEST_F(BadFolderTest, IndexMayNotLeaveTheFolder) {
  CopyWith("model.safetensors.index.json");
  folder_.Write("model.safetensors.index.json",
                R"({"weight_map":{"wte.weight":"../x.safetensors"}})");
  EXPECT_THAT(OpenFolder(folder()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("../x.safetensors")));
}

TEST_F(BadFolderTest, AnIndexThatMakesNoSenseIsNamed) {
  CopyWith("model.safetensors.index.json");
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  for (const auto& [index, code, message] :
       std::initializer_list<std::tuple<std::string, absl::StatusCode, const char*>>{
           {"{", kInvalid, "index.json"},
           {"{}", kInvalid, "no weight_map object"},
           {R"({"weight_map":["a"]})", kInvalid, "no weight_map object"},
           {R"({"weight_map":{"wte.weight":7}})", kInvalid, "maps to a number, want a file name"},
           {R"({"weight_map":{"no.such.tensor":")" + OneShard() + "\"}}",
            absl::StatusCode::kDataLoss, "holds no tensor no.such.tensor"}}) {
    folder_.Write("model.safetensors.index.json", index);
    EXPECT_THAT(OpenFolder(folder()), StatusIs(code, HasSubstr(message))) << index;
  }
}

TEST_F(BadFolderTest, MissingFileOfAnIndexIsNamed) {
  CopyWith("model.safetensors.index.json");
  const std::string removed = OneShard();
  fs::remove(folder() + "/" + removed);
  EXPECT_THAT(OpenFolder(folder()), StatusIs(absl::StatusCode::kNotFound, HasSubstr(removed)));
}

}  // namespace
}  // namespace hanlin
