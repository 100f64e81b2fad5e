// The schedule of causal attention's thread blocks: every block of rows once, and an even end.
#include "kernels/attention/cuda/causal_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace hanlin {
namespace {

struct Launch {
  int length, rows;
  bool of_queries;
  int heads, sequences, multiprocessors;
};

// Tiles that the thread blocks meet, and one more a block of rows for its ends.
std::vector<int> Loads(const Launch& launch) {
  const auto& [length, rows, of_queries, heads, sequences, multiprocessors] = launch;
  const CausalWork work =
      CausalWork::Make(length, rows, of_queries, heads, sequences, multiprocessors);
  const int thread_blocks = std::min(work.count(), multiprocessors);
  std::vector<int> served(work.count()), loads(thread_blocks);
  for (int i = 0; i < thread_blocks; ++i) {
    Schedule schedule(work, i, thread_blocks);
    while (schedule.Next()) {
      const int position = schedule.first + work.before, tile = schedule.first / 64;
      const int item = (schedule.sequence * heads + schedule.head) * work.blocks + position / rows;
      EXPECT_EQ(position % rows, 0);
      ++served.at(item);
      loads[i] += 1 + (of_queries ? (schedule.first + rows) / 64 : (length + 63) / 64 - tile);
    }
    EXPECT_FALSE(schedule.Next());
  }
  EXPECT_EQ(served, std::vector<int>(work.count(), 1))
      << length << " by " << rows << ", " << heads << " heads, " << sequences;
  return loads;
}

TEST(CausalScheduleTest, ServesEveryBlockOfRowsOnce) {
  for (const int length : {1, 64, 65, 193, 513, 1024, 2048}) {
    for (const int rows : {128, 192}) {
      for (const bool of_queries : {false, true}) {
        for (const int heads : {1, 3, 12}) {
          for (const int sequences : {1, 2, 64}) {
            for (const int multiprocessors : {1, 7, 50, 132}) {
              Loads({length, rows, of_queries, heads, sequences, multiprocessors});
            }
          }
        }
      }
    }
  }
}

TEST(CausalScheduleTest, ThreadBlocksEndTogether) {
  for (const bool of_queries : {false, true}) {
    for (const Launch& launch :
         {Launch{1024, 192, of_queries, 12, 64, 132}, Launch{2048, 192, of_queries, 32, 8, 132},
          Launch{1024, 128, of_queries, 32, 8, 132}, Launch{2048, 128, of_queries, 40, 4, 132}}) {
      const std::vector<int> loads = Loads(launch);
      double sum = 0;
      for (const int load : loads) sum += load;
      EXPECT_LE(*std::max_element(loads.begin(), loads.end()), 1.02 * sum / loads.size())
          << launch.length << " by " << launch.rows;
    }
  }
}

}  // namespace
}  // namespace hanlin
