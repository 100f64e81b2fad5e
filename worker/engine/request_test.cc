// Defaults and checks of requests.
#include "worker/engine/request.h"

#include <cmath>
#include <functional>
#include <limits>

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

ModelConfig TestConfig() {
  ModelConfig config;
  config.vocab_size = 100;
  config.max_positions = 32;
  config.end_token_ids = {1};
  return config;
}

GenerationRequest ValidRequest() {
  GenerationRequest request;
  request.ids = {5, 6, 7};
  request.num_prompt_tokens = 3;
  return request;
}

TEST(ResolveRequest, FillsUnsetFieldsWithTheHousesDefaults) {
  ASSERT_OK_AND_ASSIGN(ResolvedRequest resolved, ResolveRequest(ValidRequest(), TestConfig()));
  EXPECT_EQ(resolved.sampling.temperature, 1.0f);
  EXPECT_EQ(resolved.sampling.top_k, 0);
  EXPECT_EQ(resolved.sampling.top_p, 0.9f);
  EXPECT_EQ(resolved.max_new_tokens, 29) << "the room, which is less than 100";
  EXPECT_EQ(resolved.logprobs, -1);
  EXPECT_FALSE(resolved.ignore_eos);
}

TEST(ResolveRequest, FillsUnsetFieldsWithTheModelsDefaults) {
  ModelConfig config = TestConfig();
  config.generation = {.tokens_to_generate = 7, .top_k = 5, .top_p = 0.0f, .temperature = 0.5f};
  ASSERT_OK_AND_ASSIGN(ResolvedRequest resolved, ResolveRequest(ValidRequest(), config));
  EXPECT_EQ(resolved.sampling.temperature, 0.5f);
  EXPECT_EQ(resolved.sampling.top_k, 5);
  EXPECT_EQ(resolved.sampling.top_p, 1.0f) << "ModelScope's 0 means off";
  EXPECT_EQ(resolved.max_new_tokens, 7);
}

TEST(ResolveRequest, KeepsWhatIsSet) {
  GenerationRequest request = ValidRequest();
  request.sampling.temperature = 0.0f;
  request.sampling.seed = 17;
  request.stopping.max_new_tokens = 29;
  request.choice_index = 3;
  ASSERT_OK_AND_ASSIGN(ResolvedRequest resolved, ResolveRequest(request, TestConfig()));
  EXPECT_EQ(resolved.sampling.temperature, 0.0f);
  EXPECT_EQ(resolved.sampling.seed, 17u);
  EXPECT_EQ(resolved.sampling.choice, 3u);
  EXPECT_EQ(resolved.max_new_tokens, 29);
}

TEST(ResolveRequest, DrawsDifferentSeedsWhenUnset) {
  ASSERT_OK_AND_ASSIGN(ResolvedRequest a, ResolveRequest(ValidRequest(), TestConfig()));
  ASSERT_OK_AND_ASSIGN(ResolvedRequest b, ResolveRequest(ValidRequest(), TestConfig()));
  EXPECT_NE(a.sampling.seed, b.sampling.seed);
}

struct BadRequest {
  const char* name;
  std::function<void(GenerationRequest&)> spoil;
  const char* seen;    // in the message
  const char* wanted;  // in the message
};

class RefusesTest : public ::testing::TestWithParam<BadRequest> {};

TEST_P(RefusesTest, NamingTheValueSeenAndTheValueWanted) {
  GenerationRequest request = ValidRequest();
  GetParam().spoil(request);
  const absl::StatusOr<ResolvedRequest> resolved = ResolveRequest(request, TestConfig());
  EXPECT_THAT(resolved,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       ::testing::AllOf(HasSubstr(GetParam().seen), HasSubstr(GetParam().wanted))));
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
using R = GenerationRequest;

INSTANTIATE_TEST_SUITE_P(
    ResolveRequest, RefusesTest,
    ::testing::Values(
        BadRequest{"EmptyPrompt", [](R& r) { r.ids = {}, r.num_prompt_tokens = 0; }, "empty",
                   "at least one"},
        BadRequest{"NegativePrompt", [](R& r) { r.num_prompt_tokens = -1; }, "empty",
                   "at least one"},
        BadRequest{"PromptLongerThanIds", [](R& r) { r.num_prompt_tokens = 4; }, "4", "3 ids"},
        BadRequest{"PromptFillsContext",
                   [](R& r) { r.ids.assign(32, 5), r.num_prompt_tokens = 32; }, "32 tokens",
                   "at most 31"},
        BadRequest{"IdTooLarge", [](R& r) { r.ids[1] = 100; }, "100", "[0, 100)"},
        BadRequest{"IdNegative", [](R& r) { r.ids[1] = -1; }, "-1", "[0, 100)"},
        BadRequest{"TemperatureNegative", [](R& r) { r.sampling.temperature = -0.5f; },
                   "temperature is -0.5", "[0, 100]"},
        BadRequest{"TemperatureNan", [](R& r) { r.sampling.temperature = kNan; },
                   "temperature is nan", "[0, 100]"},
        BadRequest{"TopKNegative", [](R& r) { r.sampling.top_k = -1; }, "top_k is -1", "[0, 100]"},
        BadRequest{"TopKLarge", [](R& r) { r.sampling.top_k = 101; }, "top_k is 101", "[0, 100]"},
        BadRequest{"TopPZero", [](R& r) { r.sampling.top_p = 0.0f; }, "top_p is 0", "(0, 1]"},
        BadRequest{"TopPLarge", [](R& r) { r.sampling.top_p = 1.5f; }, "top_p is 1.5", "(0, 1]"},
        BadRequest{"TopPNan", [](R& r) { r.sampling.top_p = kNan; }, "top_p is nan", "(0, 1]"},
        BadRequest{"MinPLarge", [](R& r) { r.sampling.min_p = 2.0f; }, "min_p is 2", "[0, 1]"},
        BadRequest{"RepetitionZero", [](R& r) { r.sampling.repetition_penalty = 0.0f; },
                   "repetition_penalty is 0", "(0, 100]"},
        BadRequest{"PresenceInfinite", [](R& r) { r.sampling.presence_penalty = kInf; },
                   "presence_penalty is inf", "[-100, 100]"},
        BadRequest{"FrequencyNan", [](R& r) { r.sampling.frequency_penalty = kNan; },
                   "frequency_penalty is nan", "[-100, 100]"},
        BadRequest{"BiasIdOutside",
                   [](R& r) {
                     r.sampling.logit_bias = {{100, 1.0f}};
                   },
                   "logit_bias holds the id 100", "[0, 100)"},
        BadRequest{"BiasNan",
                   [](R& r) {
                     r.sampling.logit_bias = {{5, kNan}};
                   },
                   "logit_bias is nan", "[-1000, 1000]"},
        BadRequest{"BiasTooMany",
                   [](R& r) {
                     r.sampling.logit_bias.assign(4097, {5, 0.0f});
                   },
                   "4097", "at most 4096"},
        BadRequest{"MaxNewTokensZero", [](R& r) { r.stopping.max_new_tokens = 0; },
                   "max_new_tokens is 0", "1 to 29"},
        BadRequest{"MaxNewTokensBeyondRoom", [](R& r) { r.stopping.max_new_tokens = 30; },
                   "max_new_tokens is 30", "1 to 29"},
        BadRequest{"NothingLeftToGenerate",
                   [](R& r) { r.num_prompt_tokens = 1, r.stopping.max_new_tokens = 2; },
                   "2 tokens were generated", "fewer than max_new_tokens = 2"},
        BadRequest{"MinAboveMax",
                   [](R& r) { r.stopping.max_new_tokens = 3, r.stopping.min_new_tokens = 4; },
                   "min_new_tokens is 4", "max_new_tokens = 3"},
        BadRequest{"StopIdOutside", [](R& r) { r.stopping.stop_ids = {100}; },
                   "stop_ids holds the id 100", "[0, 100)"},
        BadRequest{"StopIdsTooMany", [](R& r) { r.stopping.stop_ids.assign(65, 5); }, "65",
                   "at most 64"},
        BadRequest{"TimeLimitZero", [](R& r) { r.stopping.time_limit_ms = 0; },
                   "time_limit_ms is 0", "at least 1"},
        BadRequest{"LogprobsTooMany", [](R& r) { r.logprobs = 21; }, "logprobs is 21", "[0, 20]"},
        BadRequest{"ChoiceNegative", [](R& r) { r.choice_index = -1; }, "choice_index is -1",
                   "at least 0"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace hanlin
