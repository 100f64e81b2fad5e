// Checkpoints: exact resume in both dtypes, any degree to any other, atomicity on a full disk,
// retention, links, and what is refused.
#include "trainer/checkpoint/checkpoint.h"

#include <signal.h>
#include <sys/resource.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/io/file.h"
#include "model/checkpoint/checkpoint.h"
#include "model/train/testing.h"

namespace hanlin {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::RandomBatch;
using testing::ReadAll;
using testing::RunGrid;
using testing::SmallConfig;
using testing::StatusIs;

std::unique_ptr<TrainModel> Make(ThreadPool& pool, Communicator* tensor = nullptr,
                                 Communicator* data = nullptr) {
  TrainModelOptions options = {.config = SmallConfig()};
  options.config.end_token_ids = {1};
  options.tensor = tensor;
  options.data = data;
  options.dropout = {0.1f, 0.1f, 0.1f};
  auto model = MakeCpuTrainModel(options, pool).value();
  EXPECT_OK(LoadParameters(*Checkpoint::Random(options.config, 3), *model));
  return model;
}

void Step(TrainModel& model, uint32_t step) {
  const TrainBatch batch = RandomBatch(model.options().config, 2, 12, 2, step);
  std::vector<float> losses(batch.tokens.size());
  model.ZeroGradients();
  ASSERT_OK(model.ForwardBackward(batch, step, losses));
  ASSERT_OK(model.ReduceGradients());
  ASSERT_OK(model.Update(1e-3, 1.0f, step + 1));
}

absl::StatusOr<Snapshot> Take(const TrainModel& model, int64_t step) {
  Snapshot snapshot;
  snapshot.state.step = step;
  snapshot.state.recipe = "lr: 1\n";
  RETURN_IF_ERROR(GatherTensors(model, TrainState::kParameters, true, &snapshot.parameters));
  RETURN_IF_ERROR(GatherTensors(model, TrainState::kMoment1, true, &snapshot.moment1));
  RETURN_IF_ERROR(GatherTensors(model, TrainState::kMoment2, true, &snapshot.moment2));
  return snapshot;
}

CheckpointOptions Options(const std::string& output) {
  CheckpointOptions options = {.output = output, .config = SmallConfig()};
  options.config.end_token_ids = {1};
  return options;
}

TEST(CheckpointTest, ResumingIsBitIdenticalToGoingOn) {
  ThreadPool pool(2);
  for (const bool bfloat16 : {false, true}) {
    const testing::TempDir directory;
    CheckpointOptions options = Options(directory.path());
    options.bfloat16 = bfloat16;
    const auto whole = Make(pool);
    Step(*whole, 0);
    Step(*whole, 1);
    ASSERT_OK_AND_ASSIGN(const Snapshot snapshot, Take(*whole, 2));
    ASSERT_OK(WriteCheckpoint(options, snapshot));
    Step(*whole, 2);
    const auto resumed = Make(pool);
    ASSERT_OK_AND_ASSIGN(const auto folder, NewestCheckpoint(directory.path()));
    ASSERT_OK_AND_ASSIGN(const RunState state, LoadCheckpoint(*folder, *resumed));
    EXPECT_EQ(state, snapshot.state);
    Step(*resumed, 2);
    for (const TrainState array :
         {TrainState::kParameters, TrainState::kMoment1, TrainState::kMoment2}) {
      EXPECT_EQ(ReadAll(*resumed, array), ReadAll(*whole, array));
    }
  }
}

TEST(CheckpointTest, TheFolderIsAModelThatTheReadersOpen) {
  ThreadPool pool(1);
  const testing::TempDir directory;
  const auto model = Make(pool);
  ASSERT_OK_AND_ASSIGN(Snapshot snapshot, Take(*model, 7));
  snapshot.best = true;
  ASSERT_OK(WriteCheckpoint(Options(directory.path()), snapshot));
  for (const char* name : {"step-00000007", "latest", "best"}) {
    const std::string folder = directory.path() + "/" + name;
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(folder));
    EXPECT_THAT(config.end_token_ids, ElementsAre(1));
    ASSERT_OK_AND_ASSIGN(const auto weights, Checkpoint::Open(folder, config));
    std::vector<float> got(LocalShape(config, TensorRole::kMlpUpWeight, 1).size());
    ASSERT_OK(weights->Read({TensorRole::kMlpUpWeight, 1}, 0, 1, got.data()));
    std::vector<float> want(got.size());
    ASSERT_OK(model->ReadState(TrainState::kParameters,
                               model->layout().Of({TensorRole::kMlpUpWeight, 1}).offset, want));
    EXPECT_EQ(got, want);
  }
}

// N -> M -> N: what ranks of another number load and write again has the same bytes.
TEST(CheckpointTest, AnyDegreesReadWhatOthersWrote) {
  const testing::TempDir directory;
  const auto write = [&](int tp, int dp, const std::string& from, const std::string& to) {
    fs::create_directories(to);
    RunGrid(tp, dp, [&](Communicator& tensor, Communicator& data, int t, int d) {
      ThreadPool pool(1);
      const auto model = Make(pool, &tensor, &data);
      if (from.empty()) {
        Step(*model, 0);
        Step(*model, 1);
      } else {
        ASSERT_OK(LoadCheckpoint(from + "/latest", *model).status());
      }
      ASSERT_OK_AND_ASSIGN(const Snapshot snapshot, Take(*model, 2));
      if (t > 0 || d > 0) return;
      ASSERT_OK(WriteCheckpoint(Options(to), snapshot));
    });
  };
  const std::string& root = directory.path();
  write(2, 2, "", root + "/a");
  write(1, 1, root + "/a", root + "/b");
  write(4, 1, root + "/b", root + "/c");
  write(1, 4, root + "/c", root + "/d");
  write(2, 2, root + "/d", root + "/e");
  for (const char* file : {"/latest/model.safetensors", "/latest/trainer/optimizer.safetensors",
                           "/latest/trainer/state.json", "/latest/config.json"}) {
    const std::string want = ReadFile(root + "/a" + file).value();
    for (const char* other : {"/b", "/c", "/d", "/e"}) {
      EXPECT_TRUE(ReadFile(root + other + file).value() == want) << other << file;
    }
  }
}

TEST(CheckpointTest, AFullDiskLeavesTheOneBeforeAndNothingElse) {
  ThreadPool pool(1);
  const testing::TempDir directory;
  const auto model = Make(pool);
  ASSERT_OK_AND_ASSIGN(Snapshot snapshot, Take(*model, 1));
  ASSERT_OK(WriteCheckpoint(Options(directory.path()), snapshot));
  snapshot.state.step = 2;
  rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {100 << 10, before.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  CheckpointWriter writer(Options(directory.path()));
  EXPECT_OK(writer.Start(snapshot));
  EXPECT_THAT(writer.Wait(), StatusIs(absl::StatusCode::kResourceExhausted,
                                      ::testing::AllOf(HasSubstr("checkpoint step-00000002"),
                                                       HasSubstr("cannot write"))));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_THAT(ListDirectory(directory.path()).value(), ElementsAre("latest", "step-00000001"));
  EXPECT_OK(LoadCheckpoint(directory.path() + "/latest", *model).status());
}

TEST(CheckpointTest, LeftoversOfAKilledWriterAreNoCheckpoint) {
  ThreadPool pool(1);
  const testing::TempDir directory;
  directory.Write(".step-00000009.tmp/config.json", "{");
  ASSERT_OK_AND_ASSIGN(const auto none, NewestCheckpoint(directory.path()));
  EXPECT_FALSE(none.has_value());
  const auto model = Make(pool);
  ASSERT_OK_AND_ASSIGN(const Snapshot snapshot, Take(*model, 9));
  ASSERT_OK(WriteCheckpoint(Options(directory.path()), snapshot));
  EXPECT_OK(LoadCheckpoint(directory.path() + "/latest", *model).status());
}

TEST(CheckpointTest, TheNewestAndTheBestAreKept) {
  ThreadPool pool(1);
  const testing::TempDir directory;
  const auto model = Make(pool);
  ASSERT_OK_AND_ASSIGN(Snapshot snapshot, Take(*model, 1));
  for (int64_t step = 1; step <= 6; ++step) {
    snapshot.state.step = step;
    snapshot.best = step == 2;
    ASSERT_OK(WriteCheckpoint(Options(directory.path()), snapshot));
  }
  EXPECT_THAT(ListDirectory(directory.path()).value(),
              ElementsAre("best", "latest", "step-00000002", "step-00000005", "step-00000006"));
  EXPECT_EQ(fs::read_symlink(directory.path() + "/best"), "step-00000002");
}

TEST(CheckpointTest, AnotherArchitectureAndDamageAreNamed) {
  ThreadPool pool(1);
  const testing::TempDir directory;
  const auto model = Make(pool);
  ASSERT_OK_AND_ASSIGN(const Snapshot snapshot, Take(*model, 1));
  ASSERT_OK(WriteCheckpoint(Options(directory.path()), snapshot));
  const std::string folder = directory.path() + "/step-00000001";
  TrainModelOptions other = {.config = SmallConfig()};
  other.config.num_layers = 3;
  EXPECT_THAT(LoadCheckpoint(folder, *MakeCpuTrainModel(other, pool).value()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("another architecture: layers 2, want 3")));
  const std::string good = ReadFile(folder + "/trainer/state.json").value();
  for (const char* bad : {"", "{", "{\"version\": 2}", "{\"version\": 1, \"step\": -1}",
                          "{\"version\": 1, \"step\": \"x\"}"}) {
    directory.Write("step-00000001/trainer/state.json", bad);
    EXPECT_FALSE(LoadCheckpoint(folder, *model).ok()) << bad;
  }
  // Each count alone: missing, negative, too large for a count, another type.
  const nlohmann::json state = nlohmann::json::parse(good);
  for (const char* key : {"step", "updates", "epoch", "step_in_epoch", "tokens", "best_step",
                          "evaluations_since_best"}) {
    for (const nlohmann::json& value : {nlohmann::json(), nlohmann::json(-1), nlohmann::json(1.5),
                                        nlohmann::json("1"), nlohmann::json(~uint64_t{0})}) {
      nlohmann::json damaged = state;
      damaged[key] = value;
      directory.Write("step-00000001/trainer/state.json", damaged.dump());
      EXPECT_THAT(LoadCheckpoint(folder, *model),
                  StatusIs(absl::StatusCode::kDataLoss,
                           ::testing::AllOf(HasSubstr("state.json"),
                                            HasSubstr(fmt::format("{} is not a count", key)))))
          << value;
    }
  }
  directory.Write("step-00000001/trainer/state.json", good);
  std::string bytes = ReadFile(folder + "/trainer/optimizer.safetensors").value();
  directory.Write("step-00000001/trainer/optimizer.safetensors", bytes.substr(0, bytes.size() / 2));
  EXPECT_THAT(LoadCheckpoint(folder, *model),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("optimizer.safetensors")));
  // A tensor of another name or shape; the header stands in front and keeps its length.
  for (const auto& [from, to, code, message] :
       {std::tuple{"\"m.ln_f.bias\"", "\"m.ln_x.bias\"", absl::StatusCode::kDataLoss,
                   "there is no tensor m.ln_f.bias"},
        std::tuple{"\"v.ln_f.weight\":{\"dtype\":\"F32\",\"shape\":[",
                   "\"v.ln_f.weight\":{\"dtype\":\"F32\",\"shape\":[1,",
                   absl::StatusCode::kFailedPrecondition, "v.ln_f.weight"}}) {
    std::string damaged = bytes;
    const size_t at = damaged.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    damaged.replace(at, std::string_view(from).size(), to);
    const auto added = std::string_view(to).size() - std::string_view(from).size();
    uint64_t header = 0;
    std::memcpy(&header, damaged.data(), sizeof(header));
    header += added;
    std::memcpy(damaged.data(), &header, sizeof(header));
    directory.Write("step-00000001/trainer/optimizer.safetensors", damaged);
    EXPECT_THAT(LoadCheckpoint(folder, *model), StatusIs(code, HasSubstr(message)));
  }
}

}  // namespace
}  // namespace hanlin
