// What the engine does when its executor fails or stands still.
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/testing/testing.h"
#include "worker/engine/engine.h"
#include "worker/engine/null_executor.h"
#include "worker/engine/testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::RecordingSink;
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

class EngineFailureTest : public ::testing::Test {
 protected:
  void Start(std::function<absl::Status(const StepPlan&)> before_step,
             absl::Duration stall_timeout = absl::Seconds(30)) {
    ModelConfig config;
    config.vocab_size = 400;
    config.max_positions = 128;
    Engine::Options options{.config = config, .num_kv_blocks = 64};
    options.stall_timeout = stall_timeout;
    options.heartbeat = &heartbeat_;
    options.on_failure = [this](const absl::Status& status) {
      absl::MutexLock lock(&mutex_);
      failure_ = status;
      ++failures_;
    };
    auto engine =
        Engine::Create(options, std::make_unique<NullExecutor>(NullExecutor::Options{
                                    .config = config, .before_step = std::move(before_step)}));
    ASSERT_OK(engine);
    engine_ = *std::move(engine);
  }
  SubmitResult Submit(uint64_t id) {
    GenerationRequest request;
    request.id = id;
    request.ids = {5, 6, 7};
    request.num_prompt_tokens = 3;
    request.stopping.max_new_tokens = 50;
    return engine_->Submit(request, sink_);
  }
  int failures() {
    absl::MutexLock lock(&mutex_);
    return failures_;
  }

  absl::Mutex mutex_;
  absl::Status failure_;
  int failures_ = 0;
  std::atomic<uint64_t> heartbeat_ = 0;
  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineFailureTest, AFailedStepEndsAllRequestsWithUnavailable) {
  std::atomic<int> steps = 0;
  std::atomic<bool> all_in = false;
  Start([&](const StepPlan&) -> absl::Status {
    absl::SleepFor(absl::Milliseconds(1));
    if (all_in && ++steps > 5) return Unavailable("rank 1 is gone");
    return absl::OkStatus();
  });
  for (int i = 0; i < 4; ++i) ASSERT_OK(Submit(i).status);
  all_in = true;
  for (int i = 0; i < 4; ++i) {
    EXPECT_THAT(sink_->WaitFor(i).last.error,
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 1 is gone")));
  }
  EXPECT_TRUE(absl::IsUnavailable(engine_->health()));
  EXPECT_TRUE(absl::IsUnavailable(Submit(9).status));
  engine_.reset();
  EXPECT_EQ(failures(), 1);
}

TEST_F(EngineFailureTest, AStalledStepEndsAllRequestsThoughItsThreadHangs) {
  absl::Notification release;
  Start(
      [&](const StepPlan&) {
        release.WaitForNotificationWithTimeout(absl::Seconds(20));
        return absl::OkStatus();
      },
      absl::Milliseconds(100));
  ASSERT_OK(Submit(1).status);
  EXPECT_THAT(sink_->WaitFor(1, absl::Seconds(5)).last.error,
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no progress")));
  EXPECT_TRUE(absl::IsUnavailable(engine_->health()));
  release.Notify();
  engine_.reset();
  EXPECT_EQ(failures(), 1);
  EXPECT_EQ(sink_->events_after_the_last(), 0);
}

TEST_F(EngineFailureTest, ALongStepThatMakesProgressIsNoStall) {
  Start(
      [&](const StepPlan&) {
        for (int i = 0; i < 25; ++i) {
          absl::SleepFor(absl::Milliseconds(10));
          ++heartbeat_;
        }
        return absl::OkStatus();
      },
      absl::Milliseconds(100));
  ASSERT_OK(Submit(1).status);
  EXPECT_TRUE(sink_->WaitForIds(1, 2));
  EXPECT_OK(engine_->health());
  engine_->Abort(sink_.get(), 1);
}

TEST_F(EngineFailureTest, AnIdleEngineIsHealthy) {
  Start({}, absl::Milliseconds(50));
  absl::SleepFor(absl::Milliseconds(300));
  EXPECT_OK(engine_->health());
}

TEST_F(EngineFailureTest, ImpossibleOptionsAreRefused) {
  EXPECT_THAT(Engine::Create({.num_kv_blocks = 0}, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("num_kv_blocks is 0")));
}

}  // namespace
}  // namespace hanlin
