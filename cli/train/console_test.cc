// Lines of the console, on something that is no terminal.
#include "cli/train/console.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace hanlin::cli {
namespace {

using ::testing::HasSubstr;

TEST(ConsoleTest, TimesAreShort) {
  EXPECT_EQ(ShortTime(44.6), "45s");
  EXPECT_EQ(ShortTime(200), "3m20s");
  EXPECT_EQ(ShortTime(3725), "1h02m");
  EXPECT_EQ(ShortTime(-1), "0s");
}

TEST(ConsoleTest, AStepShowsLossRateSpeedShareMemoryAndTimeLeft) {
  const StepReport report = {.step = 30,
                             .total_steps = 120,
                             .epoch = 1,
                             .loss = 4.32104,
                             .learning_rate = 3e-5,
                             .tokens_per_second = 1234.4,
                             .mfu = 0.414,
                             .memory_bytes = uint64_t{512} << 20,
                             .seconds_left = 90};
  EXPECT_EQ(StepLine(report),
            "step 30/120 [#####...............] loss 4.3210 lr 3.0e-05 | 1234 tok/s, 41 % MFU, 512 "
            "MiB, 1m30s left");
  EXPECT_THAT(StepLine({}), HasSubstr("step 0/0"));
}

class Counter : public Observer {
 public:
  void OnMessage(const std::string&) override { ++messages; }
  void OnStep(const StepReport&) override { ++steps; }
  void OnEvaluation(int64_t, const EvaluationResult&, bool) override { ++evaluations; }
  void OnSample(int64_t, int, const std::string&, const std::string&) override { ++samples; }
  int messages = 0, steps = 0, evaluations = 0, samples = 0;
};

TEST(ConsoleTest, LinesWithoutATerminalAndEverythingReachesTheLog) {
  char* text = nullptr;
  size_t size = 0;
  FILE* const stream = open_memstream(&text, &size);
  // A memory stream has no descriptor, so it is no terminal.
  Counter log;
  {
    Console console(stream);
    console.OnMessage("early");
    console.set_log(&log);
    console.OnStep({.step = 1, .total_steps = 2});
    console.OnEvaluation(1, {.loss = 1, .ppl = 2.718, .ppl_modelscope = 9}, true);
    console.OnSample(1, 2, "床前", "明月光");
  }
  fclose(stream);
  EXPECT_THAT(text, HasSubstr("early\nstep 1/2"));
  EXPECT_THAT(text, HasSubstr("ppl 2.718, ppl_modelscope 9.000, the best so far\n"));
  EXPECT_THAT(text, HasSubstr("sample 2: 床前|明月光\n"));
  EXPECT_EQ(log.samples, 1);
  EXPECT_EQ(log.messages, 1);
  EXPECT_EQ(log.steps, 1);
  EXPECT_EQ(log.evaluations, 1);
  free(text);
}

}  // namespace
}  // namespace hanlin::cli
