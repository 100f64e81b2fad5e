// Rates at the points that the documentation of the recipes gives, and the ends of the others.
#include "trainer/schedule/schedule.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "common/io/file.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

TrainConfig Config(const char* type, double lr, int64_t warmup) {
  TrainConfig config;
  config.schedule.type = type;
  config.schedule.warmup = warmup;
  config.optimizer.lr = lr;
  return config;
}

TEST(ScheduleTest, NoamIsThatOfTheRecipes) {
  const TrainConfig poetry = Config("noam", 3e-4, 100), questions = Config("noam", 1e-4, 200);
  const std::pair<int64_t, double> poetry_points[] = {{0, 3e-7},
                                                      {1, 6e-7},
                                                      {49, 1.5e-5},
                                                      {99, 3e-5},
                                                      {100, 2.98511157e-5},
                                                      {199, 2.12132034e-5},
                                                      {399, 1.5e-5},
                                                      {999, 9.48683e-6}};
  for (const auto& [t, want] : poetry_points) {
    EXPECT_NEAR(LearningRate(poetry, t, 10000), want, 1e-6 * want) << t;
  }
  const std::pair<int64_t, double> question_points[] = {
      {0, 3.5355e-8}, {49, 1.76777e-6}, {99, 3.53553e-6}, {199, 7.07107e-6}, {399, 5e-6}};
  for (const auto& [t, want] : question_points) {
    EXPECT_NEAR(LearningRate(questions, t, 10000), want, 2e-5 * want) << t;
  }
}

TEST(ScheduleTest, GoldenRunsWithAndWithoutAccumulation) {
  int runs = 0;
  for (const std::string& directory : testing::GoldenCases("modelscope")) {
    const auto json =
        nlohmann::json::parse(ReadFile(directory + "/expected.json").value(), nullptr, false);
    if (!json.contains("runs")) continue;
    for (const auto& [name, run] : json["runs"].items()) {
      TrainConfig config = Config("noam", json["optimizer"]["lr"], json["optimizer"]["warmup"]);
      config.schedule.stride = run["cumulative_iters"];
      for (size_t step = 0; step < run["lrs"].size(); ++step) {
        const double want = run["lrs"][step];
        EXPECT_NEAR(LearningRate(config, step, 100), want, 1e-6 * want) << name << " " << step;
      }
      ++runs;
    }
  }
  EXPECT_GT(runs, 0);
}

TEST(ScheduleTest, CosineLinearAndConstantWarmUpAndEndWhereTheyShould) {
  for (const char* type : {"cosine", "linear", "constant"}) {
    TrainConfig config = Config(type, 2e-3, 300);
    config.schedule.final_ratio = 0.05;
    EXPECT_DOUBLE_EQ(LearningRate(config, 0, 4000), 2e-3 / 300) << type;
    EXPECT_DOUBLE_EQ(LearningRate(config, 299, 4000), 2e-3) << type;
    EXPECT_DOUBLE_EQ(LearningRate(config, 300, 4000), 2e-3) << type;
  }
  TrainConfig config = Config("cosine", 1, 0);
  config.schedule.final_ratio = 0.1;
  EXPECT_NEAR(LearningRate(config, 50, 100), 0.55, 1e-12);
  EXPECT_NEAR(LearningRate(config, 100, 100), 0.1, 1e-12);
  config.schedule.type = "linear";
  EXPECT_NEAR(LearningRate(config, 50, 100), 0.55, 1e-12);
  EXPECT_NEAR(LearningRate(config, 25, 100), 0.775, 1e-12);
}

TEST(ScheduleTest, ARunShorterThanItsWarmUpStaysFinite) {
  for (const char* type : {"noam", "cosine", "linear", "constant"}) {
    EXPECT_TRUE(std::isfinite(LearningRate(Config(type, 1, 100), 500, 10))) << type;
    EXPECT_TRUE(std::isfinite(LearningRate(Config(type, 1, 0), 0, 0))) << type;
  }
}

}  // namespace
}  // namespace hanlin
