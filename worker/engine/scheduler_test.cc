// What the scheduler puts into steps.
#include "worker/engine/scheduler.h"

#include <memory>
#include <numeric>
#include <random>
#include <set>

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int32_t kBlockTokens = 4;

class SchedulerTest : public ::testing::Test {
 protected:
  void Make(Scheduler::Options options) {
    options.block_tokens = kBlockTokens;
    scheduler_ = std::make_unique<Scheduler>(options);
  }
  // A prompt of `length` ids that begins with `first`.
  Sequence* Add(int length, int32_t first = 100) {
    auto sequence = std::make_unique<Sequence>();
    sequence->request.ids.resize(length);
    std::iota(sequence->request.ids.begin(), sequence->request.ids.end(), first);
    sequence->request.num_prompt_tokens = length;
    sequences_.push_back(std::move(sequence));
    scheduler_->Add(sequences_.back().get());
    return sequences_.back().get();
  }
  // Plans a step and pretends to compute it; every row samples `token`.
  void Step(int32_t token = 7) {
    scheduler_->Plan(&plan_);
    CheckPlan();
    scheduler_->Commit();
    for (const auto& entry : scheduler_->scheduled()) {
      if (entry.samples) entry.sequence->request.ids.push_back(token);
    }
  }
  int32_t TokensOf(const Sequence* sequence) const {
    for (const auto& entry : scheduler_->scheduled()) {
      if (entry.sequence == sequence) return entry.num_tokens;
    }
    return 0;
  }
  // The plan obeys the contract of the forward pass, and no block is written by two sequences.
  void CheckPlan() const {
    if (plan_.empty()) return;
    const StepLimits limits{.vocab_size = 1 << 20,
                            .max_positions = 1 << 20,
                            .num_blocks = scheduler_->pool().total(),
                            .block_tokens = kBlockTokens};
    ASSERT_OK(CheckStep(plan_.batch(), limits));
    ASSERT_EQ(plan_.samples.size(), plan_.logit_rows.size());
    std::set<int32_t> written;
    for (const StepSequence& sequence : plan_.sequences) {
      for (int32_t i = sequence.context_tokens / kBlockTokens; i < sequence.num_blocks; ++i) {
        ASSERT_TRUE(written.insert(plan_.block_table[sequence.first_block + i]).second);
      }
    }
  }

  std::unique_ptr<Scheduler> scheduler_;
  StepPlan plan_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
};

TEST_F(SchedulerTest, AnIdleSchedulerPlansNothing) {
  Make({.num_blocks = 8});
  Step();
  EXPECT_TRUE(plan_.empty());
}

TEST_F(SchedulerTest, ThePromptsLastRowAndThenEveryTokenIsSampled) {
  Make({.num_blocks = 8});
  Add(5);
  Step();
  EXPECT_THAT(plan_.tokens, ElementsAre(100, 101, 102, 103, 104));
  EXPECT_THAT(plan_.logit_rows, ElementsAre(4));
  Step();
  EXPECT_THAT(plan_.tokens, ElementsAre(7));
  EXPECT_EQ(plan_.sequences[0].context_tokens, 5);
  EXPECT_EQ(plan_.samples[0].ids.size(), 6u);
}

TEST_F(SchedulerTest, ALongPromptIsCutAndNeverStarvesDecodes) {
  Make({.num_blocks = 64, .max_batch_tokens = 8});
  Sequence* decoding = Add(3);
  Step();
  Sequence* prompt = Add(50, 1000);
  int steps = 0;
  while (prompt->num_generated() == 0) {
    Step();
    ASSERT_EQ(TokensOf(decoding), 1);
    ASSERT_LE(plan_.tokens.size(), 8u);
    ++steps;
  }
  EXPECT_EQ(steps, 8) << "50 tokens at 7 a step";
}

TEST_F(SchedulerTest, RowsInsideAPromptAreNotSampled) {
  Make({.num_blocks = 64, .max_batch_tokens = 8});
  Add(10);
  Step();
  EXPECT_THAT(plan_.logit_rows, IsEmpty());
}

TEST_F(SchedulerTest, AdmitsInTheOrderOfArrival) {
  Make({.num_blocks = 64, .max_running = 2});
  Sequence* a = Add(3);
  Sequence* b = Add(3, 200);
  Sequence* c = Add(3, 300);
  Step();
  EXPECT_TRUE(a->running);
  EXPECT_TRUE(b->running);
  EXPECT_FALSE(c->running);
  scheduler_->Remove(a);
  Step();
  EXPECT_TRUE(c->running);
}

TEST_F(SchedulerTest, AShortRequestDoesNotOvertakeOneThatWaitsForBlocks) {
  Make({.num_blocks = 8});
  Add(20);
  Step();
  Sequence* big = Add(20, 1000);
  Sequence* small = Add(1, 2000);
  Step();
  EXPECT_FALSE(big->running);
  EXPECT_FALSE(small->running);
}

TEST_F(SchedulerTest, TheLastToComeIsPreemptedFirstAndRecomputed) {
  Make({.num_blocks = 6});
  Sequence* first = Add(8);  // 2 blocks
  Step();
  Sequence* last = Add(8, 1000);  // 2 blocks, beside which one more each is left
  while (last->preemptions == 0) {
    Step();
    ASSERT_LT(first->num_ids(), 40);
  }
  EXPECT_EQ(first->preemptions, 0);
  EXPECT_FALSE(last->running);
  EXPECT_THAT(last->blocks, IsEmpty());
  const int32_t ids_before = last->num_ids();
  EXPECT_GT(ids_before, 8);
  scheduler_->Remove(first);
  Step();
  EXPECT_EQ(last->num_ids(), ids_before + 1);
}

TEST_F(SchedulerTest, APreemptedSequenceGoesBackInFrontOfLaterOnes) {
  Make({.num_blocks = 6});
  Sequence* first = Add(8);
  Step();
  Sequence* second = Add(8, 1000);
  while (second->preemptions == 0) Step();
  Sequence* third = Add(1, 3000);
  scheduler_->Remove(first);
  Step();
  EXPECT_TRUE(second->running);
  EXPECT_LT(second->order, third->order);
}

TEST_F(SchedulerTest, ASequenceAloneReachesTheLastBlock) {
  Make({.num_blocks = 3});
  Sequence* sequence = Add(2);
  EXPECT_TRUE(scheduler_->FitsEver(12));
  EXPECT_FALSE(scheduler_->FitsEver(13));
  for (int i = 0; i < 11; ++i) Step();
  EXPECT_EQ(sequence->num_ids(), 13) << "the last one is never fed back";
  EXPECT_EQ(scheduler_->pool().available(), 0);
}

TEST_F(SchedulerTest, APrefixComputedBeforeIsNotComputedAgain) {
  Make({.num_blocks = 16});
  Sequence* first = Add(10);
  Step();
  EXPECT_EQ(first->cached_prompt_tokens, 0);
  scheduler_->Remove(first);
  Sequence* second = Add(10);
  Step();
  EXPECT_EQ(second->cached_prompt_tokens, 8);
  EXPECT_EQ(plan_.tokens.size(), 2u);
}

TEST_F(SchedulerTest, TheLastTokenIsComputedThoughItsBlockIsCached) {
  Make({.num_blocks = 16});
  Sequence* first = Add(8);
  Step();
  scheduler_->Remove(first);
  Sequence* second = Add(8);
  Step();
  EXPECT_EQ(second->cached_prompt_tokens, 4);
  EXPECT_EQ(second->num_generated(), 1);
}

TEST_F(SchedulerTest, RunningSequencesShareThePrefix) {
  Make({.num_blocks = 5});
  Add(9);
  Step();
  Sequence* second = Add(9);
  Step();
  EXPECT_TRUE(second->running) << "3 + 3 blocks fit only when two are shared";
  EXPECT_EQ(scheduler_->pool().used(), 4);
}

TEST_F(SchedulerTest, PausedSequencesAreLeftOutAndKeepTheirPlace) {
  Make({.num_blocks = 16});
  Sequence* a = Add(3);
  Sequence* b = Add(3, 200);
  Step();
  a->paused = true;
  Step();
  EXPECT_EQ(TokensOf(a), 0);
  EXPECT_EQ(TokensOf(b), 1);
  a->paused = false;
  Step();
  EXPECT_EQ(TokensOf(a), 1);
}

TEST_F(SchedulerTest, APausedSequenceThatWaitsDoesNotBlockOthers) {
  Make({.num_blocks = 16});
  Sequence* paused = Add(3);
  paused->paused = true;
  Sequence* other = Add(3, 200);
  Step();
  EXPECT_FALSE(paused->running);
  EXPECT_TRUE(other->running);
}

// Random arrivals, ends, pauses and shortage: every plan is valid, work is always done when there
// is any, and all blocks come back.
TEST_F(SchedulerTest, RandomLoadAlwaysProgressesAndLeaksNothing) {
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    Make({.num_blocks = static_cast<int32_t>(10 + random() % 20),
          .max_batch_tokens = static_cast<int32_t>(4 + random() % 30),
          .max_running = static_cast<int32_t>(1 + random() % 4)});
    std::vector<Sequence*> open;
    for (int step = 0; step < 300; ++step) {
      if (random() % 3 == 0 && open.size() < 8) {
        open.push_back(Add(1 + random() % 24, 100 * (random() % 3)));
      }
      ASSERT_NO_FATAL_FAILURE(Step(random() % 3));
      ASSERT_TRUE(open.empty() || !plan_.empty()) << "requests wait and nothing runs";
      std::erase_if(open, [&](Sequence* sequence) {
        if (sequence->num_ids() < 36 && random() % 20 != 0) return false;
        scheduler_->Remove(sequence);
        return true;
      });
    }
    for (Sequence* sequence : open) scheduler_->Remove(sequence);
    EXPECT_EQ(scheduler_->pool().used(), 0);
    EXPECT_EQ(scheduler_->num_queued_tokens(), 0);
  }
}

}  // namespace
}  // namespace hanlin
