// Every rule of the public request, by the message it answers with.
#include "gateway/validation.h"

#include <cmath>
#include <functional>

#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

struct Rule {
  std::function<void(v1::StreamGenerateRequest&)> spoil;
  Code code;
  const char* message;
};

v1::StreamGenerateRequest GoodRequest() {
  v1::StreamGenerateRequest request;
  request.mutable_prompt()->set_text("春眠不觉晓");
  return request;
}

v1::SamplingParameters& Sampling(v1::StreamGenerateRequest& r) {
  return *r.mutable_parameters()->mutable_sampling();
}
v1::StoppingParameters& Stopping(v1::StreamGenerateRequest& r) {
  return *r.mutable_parameters()->mutable_stopping();
}

const Rule kRules[] = {
    {[](auto& r) { r.clear_prompt(); }, Code::kInvalidArgument, "prompt is not set"},
    {[](auto& r) { r.mutable_prompt()->set_text(""); }, Code::kInvalidArgument, "text is empty"},
    {[](auto& r) { r.mutable_prompt()->set_text(std::string("ab\0c", 4)); }, Code::kInvalidArgument,
     "NUL at byte 2"},
    {[](auto& r) { r.mutable_prompt()->set_text("ok\xff"); }, Code::kInvalidArgument,
     "broken at byte 2"},
    {[](auto& r) { r.mutable_prompt()->mutable_token_ids(); }, Code::kInvalidArgument,
     "token_ids is empty"},
    {[](auto& r) { r.mutable_prompt()->mutable_token_ids()->add_ids(-7); }, Code::kInvalidArgument,
     "token_ids[0] is -7"},
    {[](auto& r) { Sampling(r).set_temperature(-1); }, Code::kInvalidArgument, "temperature is -1"},
    {[](auto& r) { Sampling(r).set_temperature(NAN); }, Code::kInvalidArgument,
     "temperature is nan"},
    {[](auto& r) { Sampling(r).set_top_p(0); }, Code::kInvalidArgument,
     "top_p is 0, want a number in (0, 1]"},
    {[](auto& r) { Sampling(r).set_top_p(1.5); }, Code::kInvalidArgument, "top_p is 1.5"},
    {[](auto& r) { Sampling(r).set_top_k(-1); }, Code::kInvalidArgument, "top_k is -1"},
    {[](auto& r) { Sampling(r).set_min_p(2); }, Code::kInvalidArgument, "min_p is 2"},
    {[](auto& r) { Sampling(r).set_repetition_penalty(0); }, Code::kInvalidArgument,
     "repetition_penalty is 0"},
    {[](auto& r) { Sampling(r).set_presence_penalty(INFINITY); }, Code::kInvalidArgument,
     "presence_penalty is inf"},
    {[](auto& r) { Sampling(r).set_frequency_penalty(-101); }, Code::kInvalidArgument,
     "frequency_penalty is -101"},
    {[](auto& r) { (*Sampling(r).mutable_logit_bias())[3] = 5000; }, Code::kInvalidArgument,
     "logit_bias[3] is 5000"},
    {[](auto& r) { (*Sampling(r).mutable_logit_bias())[-3] = 1; }, Code::kInvalidArgument,
     "logit_bias names id -3"},
    {[](auto& r) {
       for (int i = 0; i <= kMaxLogitBiases; ++i) (*Sampling(r).mutable_logit_bias())[i] = 1;
     },
     Code::kInvalidArgument, "logit_bias has 4097 entries, want at most 4096"},
    {[](auto& r) { Stopping(r).set_max_new_tokens(0); }, Code::kInvalidArgument,
     "max_new_tokens is 0"},
    {[](auto& r) {
       Stopping(r).set_max_new_tokens(2);
       Stopping(r).set_min_new_tokens(3);
     },
     Code::kInvalidArgument, "min_new_tokens is 3, want at most max_new_tokens, which is 2"},
    {[](auto& r) { Stopping(r).set_min_new_tokens(-1); }, Code::kInvalidArgument,
     "min_new_tokens is -1"},
    {[](auto& r) { Stopping(r).add_stop_strings(std::string("\xe6\x98")); }, Code::kInvalidArgument,
     "stop_strings[0] is broken at byte 0"},
    {[](auto& r) { Stopping(r).add_stop_strings(std::string()); }, Code::kInvalidArgument,
     "stop_strings[0] is empty"},
    {[](auto& r) { Stopping(r).add_stop_strings(std::string(257, 'x')); }, Code::kInvalidArgument,
     "257 bytes"},
    {[](auto& r) {
       for (int i = 0; i < 17; ++i) Stopping(r).add_stop_strings(std::string("x"));
     },
     Code::kInvalidArgument, "stop_strings has 17 entries"},
    {[](auto& r) { Stopping(r).add_stop_ids(-1); }, Code::kInvalidArgument, "stop_ids holds -1"},
    {[](auto& r) {
       for (int i = 0; i <= kMaxStopIds; ++i) Stopping(r).add_stop_ids(i);
     },
     Code::kInvalidArgument, "stop_ids has 65 entries, want at most 64"},
    {[](auto& r) { Stopping(r).set_time_limit_ms(0); }, Code::kInvalidArgument,
     "time_limit_ms is 0"},
    {[](auto& r) { r.mutable_parameters()->set_n(0); }, Code::kInvalidArgument, "n is 0"},
    {[](auto& r) { r.mutable_parameters()->set_logprobs(21); }, Code::kInvalidArgument,
     "logprobs is 21"},
    {[](auto& r) { r.mutable_parameters()->set_logprobs(-1); }, Code::kInvalidArgument,
     "logprobs is -1"},
    {[](auto& r) { r.mutable_parameters()->set_prompt_logprobs(21); }, Code::kInvalidArgument,
     "prompt_logprobs is 21"},
    {[](auto& r) { r.mutable_parameters()->mutable_beam_search()->set_beams(0); },
     Code::kInvalidArgument, "beam_search.beams is 0"},
    {[](auto& r) { r.mutable_parameters()->mutable_beam_search()->set_length_penalty(NAN); },
     Code::kInvalidArgument, "beam_search.length_penalty is nan"},
    {[](auto& r) {
       r.mutable_parameters()->mutable_beam_search()->set_beams(4);
       Sampling(r).set_temperature(1);
     },
     Code::kInvalidArgument, "beam_search is set together with temperature"},
    {[](auto& r) {
       r.mutable_parameters()->mutable_beam_search()->set_beams(4);
       r.mutable_parameters()->set_n(2);
     },
     Code::kInvalidArgument, "beam_search is set together with n"},
    {[](auto& r) { r.mutable_parameters()->mutable_beam_search()->set_beams(4); },
     Code::kUnimplemented, "beam_search"},
    {[](auto& r) { r.mutable_parameters()->set_n(2); }, Code::kUnimplemented, "n is 2"},
    {[](auto& r) { r.mutable_parameters()->set_prompt_logprobs(0); }, Code::kUnimplemented,
     "prompt_logprobs"},
    {[](auto& r) { r.mutable_parameters()->set_priority(1); }, Code::kUnimplemented,
     "priority is 1"},
};

TEST(ValidationTest, EveryRuleNamesWhatItSawAndWants) {
  for (const Rule& rule : kRules) {
    v1::StreamGenerateRequest request = GoodRequest();
    rule.spoil(request);
    EXPECT_THAT(Validate(request), StatusIs(rule.code, HasSubstr(rule.message)));
  }
}

TEST(ValidationTest, LimitsThemselvesAreAllowed) {
  v1::StreamGenerateRequest request = GoodRequest();
  Sampling(request).set_temperature(0);
  Sampling(request).set_top_p(1);
  Stopping(request).set_min_new_tokens(5);
  Stopping(request).set_max_new_tokens(5);
  for (int i = 0; i < 16; ++i) Stopping(request).add_stop_strings(std::string(256, 'x'));
  request.mutable_parameters()->set_n(1);
  request.mutable_parameters()->set_logprobs(20);
  request.mutable_parameters()->set_priority(0);
  EXPECT_OK(Validate(request));
}

TEST(ValidationTest, UnaryNamesTheBadPrompt) {
  v1::GenerateRequest request;
  EXPECT_THAT(Validate(request), StatusIs(Code::kInvalidArgument, HasSubstr("prompts has 0")));
  request.add_prompts()->set_text("好");
  request.add_prompts();
  EXPECT_THAT(Validate(request), StatusIs(Code::kInvalidArgument, HasSubstr("prompts[1]")));
  request.mutable_prompts(1)->set_text("好");
  EXPECT_OK(Validate(request));
  for (int i = 0; i < 255; ++i) request.add_prompts()->set_text("好");
  EXPECT_THAT(Validate(request), StatusIs(Code::kInvalidArgument, HasSubstr("prompts has 257")));
}

}  // namespace
}  // namespace hanlin
