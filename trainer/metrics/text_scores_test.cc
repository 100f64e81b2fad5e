// Scores against values of an independent computation in Python by the packages' rules.
#include "trainer/metrics/text_scores.h"

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;

TEST(SplitWordsTest, ChineseByCharacterTheRestByWhiteSpace) {
  EXPECT_THAT(SplitWords("用iPhone 13，\u3000值3.5元？\n"),
              ElementsAre("用", "iPhone", "13", "，", "值", "3.5", "元", "？"));
  EXPECT_THAT(SplitWords("\xff"
                         "a𠀀"),
              ElementsAre("\xff"
                          "a",
                          "𠀀"));
  EXPECT_THAT(SplitWords(" "), ElementsAre());
}

TEST(ScoreTextsTest, EqualsTheRulesOfRougeAndNltk) {
  struct Case {
    std::vector<TextPair> pairs;
    double rouge_1, rouge_l, bleu_1, bleu_4;
  };
  const Case cases[] = {
      {{{"床前明月光", "床前明月光"}}, 0.999999995, 0.999999995, 1, 1},
      {{{"北京到上海多远", "从北京到上海有多远？"},
        {"", "空"},
        {"iPhone 13 多少钱.", "iPhone 14 Pro 多少钱. 呢"}},
       0.496732023,
       0.496732023,
       0.599719318,
       0.400300040},
      {{{"天天天地地", "天地玄黄天天"}}, 0.666666662, 0.333333329, 0.654984602, 0.247369295},
      {{{"abc", "春天"}}, 0, 0, 0, 0},
      {{{"春眠", "春晓不眠"}}, 0.666666662, 0.666666662, 0.367879441, 0.130065024},
      {{{"甲乙丙丁戊己", "丙甲丁乙己戊"}}, 0.999999995, 0.499999995, 1, 0.127033187},
      {{}, 0, 0, 0, 0},
  };
  for (const Case& c : cases) {
    const TextScores scores = ScoreTexts(c.pairs);
    EXPECT_NEAR(scores.rouge_1, c.rouge_1, 1e-8);
    EXPECT_NEAR(scores.rouge_l, c.rouge_l, 1e-8);
    EXPECT_NEAR(scores.bleu_1, c.bleu_1, 1e-8);
    EXPECT_NEAR(scores.bleu_4, c.bleu_4, 1e-8);
  }
}

}  // namespace
}  // namespace hanlin
