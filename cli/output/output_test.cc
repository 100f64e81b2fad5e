// JSON lines and the progress bar.
#include <chrono>
#include <cmath>
#include <thread>

#include "cli/output/json.h"
#include "cli/output/progress.h"
#include "common/testing/testing.h"

namespace hanlin::cli {
namespace {

TEST(JsonTest, KeepsOrderAndUtf8AndNeverThrows) {
  EXPECT_EQ(ToLine({{"text", "春"}, {"ids", {3, 1}}, {"bad", "a\xff"}, {"x", std::nan("")}}),
            "{\"text\":\"春\",\"ids\":[3,1],\"bad\":\"a\xef\xbf\xbd\",\"x\":null}");
}

TEST(ProgressBarTest, ShowsThePartDone) {
  EXPECT_EQ(ProgressBar("loading", 0.25, 8), "loading  25 % [##......]");
  EXPECT_EQ(ProgressBar("loading", 7, 4), "loading 100 % [####]");
}

TEST(ProgressTest, IsQuietWhenTheWorkIsShortAndWritesLinesToAFile) {
  FILE* file = tmpfile();
  {
    Progress progress("packing", file);
    progress.Update(0.1);
    EXPECT_EQ(ftell(file), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(1050));
    progress.Update(0.5);
    progress.Update(0.6);  // within five seconds of the line before
  }
  rewind(file);
  char buffer[64] = {};
  const size_t count = fread(buffer, 1, sizeof buffer, file);
  EXPECT_EQ(std::string(buffer, count), "packing 50 %\n");
  fclose(file);
}

}  // namespace
}  // namespace hanlin::cli
