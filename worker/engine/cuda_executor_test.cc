// The engine on a GPU: a request alone gives the ids that it gives in a crowd (batch-invariant
// mode), draws are those of the CPU's sampler, and a fault of a kernel is an error, never a hang.
#include "worker/engine/cuda_executor.h"

#include <algorithm>
#include <random>

#include "common/cuda/device.h"
#include "common/io/data_dir.h"
#include "common/testing/testing.h"
#include "kernels/sampling/cuda/sample.h"
#include "worker/engine/engine.h"
#include "worker/engine/model_rank.h"
#include "worker/engine/testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Recorded;
using ::hanlin::testing::RecordingSink;
using Ids = std::vector<int32_t>;

class CudaEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto device = OpenCudaDevice(0); !device.ok()) GTEST_SKIP() << device.status();
    ASSERT_OK_AND_ASSIGN(directory_, DefaultModelDirectory());
  }

  std::unique_ptr<ModelRank> Load(bool batch_invariant) {
    auto rank = ModelRank::Create({.source = {.directory = directory_},
                                   .device = "cuda",
                                   .type = ComputeType::kBFloat16,
                                   .kv_memory = uint64_t{1} << 30,
                                   .max_running = 64,
                                   .batch_invariant = batch_invariant,
                                   .threads = 2});
    EXPECT_TRUE(rank.ok()) << rank.status();
    return rank.ok() ? *std::move(rank) : nullptr;
  }

  static std::unique_ptr<Engine> Start(ModelRank* rank, int32_t blocks, int32_t batch_tokens,
                                       int32_t running) {
    auto engine = Engine::Create({.config = rank->config(),
                                  .num_kv_blocks = std::min(blocks, rank->num_kv_blocks()),
                                  .max_batch_tokens = batch_tokens,
                                  .max_running = running,
                                  .heartbeat = rank->heartbeat()},
                                 rank->MakeExecutor());
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  std::string directory_;
};

GenerationRequest RandomRequest(std::mt19937* random, const ModelConfig& config, uint64_t id) {
  GenerationRequest request;
  request.id = id;
  const int room = std::min(config.max_positions, 120);
  const int prompt = 1 + (*random)() % (room - 40);
  for (int i = 0; i < prompt; ++i) request.ids.push_back((*random)() % config.vocab_size);
  request.num_prompt_tokens = prompt;
  request.sampling.temperature = id % 3 == 0 ? 0.0f : 1.0f;
  request.sampling.top_k = id % 2 == 0 ? 0 : 10;
  request.sampling.top_p = 0.95f;
  request.sampling.repetition_penalty = id % 5 == 0 ? 1.2f : 1.0f;
  request.sampling.seed = (*random)();
  request.stopping.max_new_tokens = 1 + (*random)() % 40;
  request.stopping.min_new_tokens = *request.stopping.max_new_tokens / 2;
  if (id % 7 == 0) request.logprobs = 2;
  return request;
}

TEST_F(CudaEngineTest, ARequestAloneEqualsTheSameRequestInABatchOf64) {
  if (!OpenCudaDevice(0)->hopper) GTEST_SKIP() << "no batch-invariant mode";
  const auto rank = Load(/*batch_invariant=*/true);
  ASSERT_NE(rank, nullptr);
  std::mt19937 random(3);
  std::vector<GenerationRequest> requests;
  requests.reserve(64);
  for (int i = 0; i < 64; ++i) requests.push_back(RandomRequest(&random, rank->config(), i));
  std::vector<Ids> alone;
  for (const GenerationRequest& request : requests) {
    const auto engine = Start(rank.get(), 64, 512, 1);
    auto sink = std::make_shared<RecordingSink>();
    ASSERT_OK(engine->Submit(request, sink).status);
    const Recorded got = sink->WaitFor(request.id);
    ASSERT_OK(got.last.error);
    ASSERT_TRUE(got.done);
    alone.push_back(got.ids);
  }
  // Crowded, in small chunks, and with few blocks, so that requests are preempted.
  struct Shape {
    int32_t blocks, batch_tokens;
  };
  for (const Shape shape : {Shape{1 << 20, 512}, Shape{1 << 20, 70}, Shape{80, 128}}) {
    const auto engine = Start(rank.get(), shape.blocks, shape.batch_tokens, 64);
    auto sink = std::make_shared<RecordingSink>();
    for (const GenerationRequest& request : requests) {
      ASSERT_OK(engine->Submit(request, sink).status);
    }
    for (const GenerationRequest& request : requests) {
      const Recorded got = sink->WaitFor(request.id);
      EXPECT_EQ(got.ids, alone[request.id]) << "request " << request.id << " " << got.last.error;
    }
  }
}

// Steps of a CudaGptModel itself.
class CudaStepTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto device = OpenCudaDevice(0); !device.ok()) GTEST_SKIP() << device.status();
    ASSERT_OK_AND_ASSIGN(const std::string directory, DefaultModelDirectory());
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(directory));
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(directory, config));
  }

  std::unique_ptr<CudaGptModel> Make(bool graphs) {
    auto model = CudaGptModel::Create({.checkpoint = checkpoint_.get(),
                                       .pool = &pool_,
                                       .num_kv_blocks = 256,
                                       .max_sequences = 16,
                                       .graphs = graphs});
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : nullptr;
  }

  ThreadPool pool_{2};
  std::unique_ptr<Checkpoint> checkpoint_;
};

// Greedy ids of `batch` sequences: a prompt each, then `steps` tokens; two steps in flight, each
// fed by the draws of the one before, or one after another with ids from the host.
std::vector<Ids> Decode(CudaGptModel* model, int batch, int steps, bool overlapped) {
  const int prompt = 20, blocks = (prompt + steps) / 16 + 1;
  std::vector<Ids> ids(batch);
  std::vector<CudaSampleRow> samples(batch);
  for (CudaSampleRow& sample : samples) sample.slot = MakeSampleSlot({.temperature = 0.0f});
  const auto begin = [&](int step, const Ids& last) {
    Ids tokens, table, rows;
    std::vector<StepSequence> sequences;
    for (int i = 0; i < batch; ++i) {
      const int count = step == 0 ? prompt : 1;
      sequences.push_back({static_cast<int32_t>(tokens.size()), count,
                           step == 0 ? 0 : prompt + step - 1, static_cast<int32_t>(table.size()),
                           blocks});
      for (int b = 0; b < blocks; ++b) table.push_back(i * blocks + b);
      for (int j = 0; j < count; ++j) {
        tokens.push_back(step == 0 ? 100 + 7 * i + j : last[i]);
      }
      rows.push_back(static_cast<int32_t>(tokens.size()) - 1);
    }
    EXPECT_OK(model->Begin({tokens, sequences, table, rows}, samples));
  };
  const auto finish = [&] {
    const auto draws = model->Finish();
    EXPECT_TRUE(draws.ok()) << draws.status();
    Ids last(draws->ids.begin(), draws->ids.end());
    for (int i = 0; i < batch; ++i) ids[i].push_back(last[i]);
    return last;
  };
  Ids rows_before(batch);
  for (int i = 0; i < batch; ++i) rows_before[i] = -1 - i;
  begin(0, {});
  for (int step = 1; step < steps; ++step) {
    if (overlapped) {
      begin(step, rows_before);
      finish();
    } else {
      begin(step, finish());
    }
  }
  finish();
  return ids;
}

TEST_F(CudaStepTest, IdsThatStayOnTheDeviceAreThoseThatWentThroughTheHost) {
  const auto model = Make(true);
  ASSERT_NE(model, nullptr);
  for (const int batch : {1, 3, 7, 16}) {
    const std::vector<Ids> want = Decode(model.get(), batch, 30, false);
    EXPECT_EQ(Decode(model.get(), batch, 30, true), want) << batch;
  }
  EXPECT_GT(model->metrics().graph_replays, 0u);
}

TEST_F(CudaStepTest, GraphsDrawWhatLaunchesDraw) {
  if (!OpenCudaDevice(0)->hopper) {
    GTEST_SKIP() << "each model times cublasLt's algorithms and may choose others";
  }
  const auto graphs = Make(true);
  const auto eager = Make(false);
  ASSERT_TRUE(graphs != nullptr && eager != nullptr);
  for (const int batch : {1, 4, 16}) {  // buckets without padding: the same kernels
    EXPECT_EQ(Decode(graphs.get(), batch, 30, true), Decode(eager.get(), batch, 30, false));
  }
  EXPECT_EQ(eager->metrics().graph_replays, 0u);
}

TEST_F(CudaStepTest, WithoutHopperTheBatchInvariantModeIsRefused) {
  if (OpenCudaDevice(0)->hopper) GTEST_SKIP() << "for the plain path";
  const auto model = CudaGptModel::Create(
      {.checkpoint = checkpoint_.get(), .pool = &pool_, .batch_invariant = true});
  EXPECT_EQ(model.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(model.status()), ::testing::HasSubstr("batch-invariant"));
}

TEST_F(CudaStepTest, ModelThatDoesNotFitSaysWhatItNeeds) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Preset("175B"));
  const auto checkpoint = Checkpoint::Random(config);
  const auto model = CudaGptModel::Create({.checkpoint = checkpoint.get(), .pool = &pool_});
  EXPECT_EQ(model.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(model.status()), ::testing::HasSubstr("weights take"));
}

// Runs a request into the fault and ends the process: 7 when it ended with UNAVAILABLE.
void RunIntoFault(ModelRank* rank) {
  auto engine = Engine::Create({.config = rank->config(), .num_kv_blocks = rank->num_kv_blocks()},
                               rank->MakeExecutor());
  auto sink = std::make_shared<RecordingSink>();
  std::mt19937 random(1);
  GenerationRequest request = RandomRequest(&random, rank->config(), 1);
  request.stopping.max_new_tokens = request.stopping.min_new_tokens = 30;
  (*engine)->Submit(request, sink).status.IgnoreError();
  const Recorded got = sink->WaitFor(1, absl::Seconds(2));
  std::fprintf(stderr, "%s\n", got.last.error.ToString().c_str());
  std::_Exit(absl::IsUnavailable(got.last.error) ? 7 : 8);
}

TEST_F(CudaEngineTest, AFaultOfAKernelEndsRequestsWithUnavailable) {
  // In a process of its own: a fault loses the device for the whole process.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  setenv("HANLIN_FAILPOINT_CUDA_FAULT", "3", 1);
  EXPECT_EXIT(RunIntoFault(Load(false).get()), ::testing::ExitedWithCode(7), "UNAVAILABLE");
  unsetenv("HANLIN_FAILPOINT_CUDA_FAULT");
}

}  // namespace
}  // namespace hanlin
