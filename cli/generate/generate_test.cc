// From the command line to requests, from pieces to JSON, and every mistake a user can make on the
// way.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/generate/generate_flags.h"
#include "cli/generate/prompts.h"
#include "cli/generate/result_json.h"
#include "common/flags/flags.h"
#include "common/testing/testing.h"

namespace hanlin::cli {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Parses the arguments as `hanlin generate` does; nullopt when the parser refuses them.
std::optional<absl::StatusOr<std::vector<v1::StreamGenerateRequest>>> Parse(
    std::vector<const char*> arguments) {
  CLI::App app("x", "generate");
  GenerateFlags flags;
  AddGenerateFlags(app, flags);
  arguments.insert(arguments.begin(), "generate");
  if (ParseFlags(app, static_cast<int>(arguments.size()), arguments.data(), false))
    return std::nullopt;
  return MakeRequests(flags);
}

TEST(GenerateFlagsTest, OptionsNotGivenStayUnset) {
  const auto requests = Parse({"--prompt", "春"});
  ASSERT_TRUE(requests.has_value());
  ASSERT_OK(*requests);
  const v1::StreamGenerateRequest& request = (*requests)->at(0);
  EXPECT_EQ(request.prompt().text(), "春");
  const v1::SamplingParameters& sampling = request.parameters().sampling();
  EXPECT_FALSE(sampling.has_temperature());
  EXPECT_FALSE(sampling.has_top_p());
  EXPECT_FALSE(sampling.has_seed());
  EXPECT_FALSE(request.parameters().stopping().has_max_new_tokens());
  EXPECT_FALSE(request.parameters().has_logprobs());
}

TEST(GenerateFlagsTest, EveryOptionSetsItsField) {
  const auto requests = Parse({"--ids",
                               "1, 2,3",
                               "--max-tokens",
                               "9",
                               "--min-tokens",
                               "2",
                               "--temperature",
                               "0.5",
                               "--top-k",
                               "7",
                               "--top-p",
                               "0.75",
                               "--min-p",
                               "0.25",
                               "--seed",
                               "42",
                               "--repetition-penalty",
                               "1.5",
                               "--presence-penalty",
                               "0.5",
                               "--frequency-penalty",
                               "-0.5",
                               "--logit-bias",
                               "5=-1.5",
                               "--stop",
                               "。",
                               "--stop",
                               "!",
                               "--stop-ids",
                               "4,5",
                               "--include-stop",
                               "--ignore-eos",
                               "--time-limit-ms",
                               "100",
                               "--logprobs",
                               "3",
                               "--echo"});
  ASSERT_TRUE(requests.has_value());
  ASSERT_OK(*requests);
  const v1::StreamGenerateRequest& request = (*requests)->at(0);
  EXPECT_THAT(request.prompt().token_ids().ids(), ElementsAre(1, 2, 3));
  const v1::SamplingParameters& sampling = request.parameters().sampling();
  EXPECT_EQ(sampling.temperature(), 0.5f);
  EXPECT_EQ(sampling.top_k(), 7);
  EXPECT_EQ(sampling.top_p(), 0.75f);
  EXPECT_EQ(sampling.min_p(), 0.25f);
  EXPECT_EQ(sampling.seed(), 42u);
  EXPECT_EQ(sampling.repetition_penalty(), 1.5f);
  EXPECT_EQ(sampling.presence_penalty(), 0.5f);
  EXPECT_EQ(sampling.frequency_penalty(), -0.5f);
  EXPECT_EQ(sampling.logit_bias().at(5), -1.5f);
  const v1::StoppingParameters& stopping = request.parameters().stopping();
  EXPECT_EQ(stopping.max_new_tokens(), 9);
  EXPECT_EQ(stopping.min_new_tokens(), 2);
  EXPECT_THAT(stopping.stop_strings(), ElementsAre("。", "!"));
  EXPECT_THAT(stopping.stop_ids(), ElementsAre(4, 5));
  EXPECT_TRUE(stopping.include_stop());
  EXPECT_TRUE(stopping.ignore_eos());
  EXPECT_EQ(stopping.time_limit_ms(), 100);
  EXPECT_EQ(request.parameters().logprobs(), 3);
  EXPECT_TRUE(request.parameters().echo());
}

TEST(GenerateFlagsTest, GreedyIsTemperatureZero) {
  EXPECT_EQ((*Parse({"--prompt", "x", "--greedy"}))->at(0).parameters().sampling().temperature(),
            0);
  EXPECT_TRUE(
      (*Parse({"--prompt", "x", "--greedy"}))->at(0).parameters().sampling().has_temperature());
}

struct Mistake {
  std::vector<const char*> arguments;
  std::string message;
};

TEST(GenerateFlagsTest, MistakesAreNamed) {
  const std::vector<Mistake> mistakes = {
      {{}, "0 of --prompt, --ids and --input"},
      {{"--prompt", "x", "--ids", "1"}, "2 of --prompt, --ids and --input"},
      {{"--prompt", ""}, "prompt.text is empty"},
      {{"--prompt", "a\xff"}, "broken at byte 1"},
      {{"--ids", "1,x"}, "\"x\" is no token id"},
      {{"--ids", ""}, "\"\" is no token id"},
      {{"--ids", "-1"}, "\"-1\" is no token id"},
      {{"--ids", "99999999999"}, "is no token id"},
      {{"--prompt", "x", "--greedy", "--temperature", "1"}, "contradict"},
      {{"--prompt", "x", "--temperature", "-1"}, "temperature is -1"},
      {{"--prompt", "x", "--temperature", "nan"}, "temperature is nan"},
      {{"--prompt", "x", "--top-p", "0"}, "top_p is 0"},
      {{"--prompt", "x", "--top-p", "1.5"}, "top_p is 1.5"},
      {{"--prompt", "x", "--top-k", "-2"}, "top_k is -2"},
      {{"--prompt", "x", "--max-tokens", "0"}, "max_new_tokens is 0"},
      {{"--prompt", "x", "--max-tokens", "3", "--min-tokens", "4"}, "min_new_tokens is 4"},
      {{"--prompt", "x", "--stop", ""}, "stop_strings[0] is empty"},
      {{"--prompt", "x", "--logprobs", "21"}, "logprobs is 21"},
      {{"--prompt", "x", "--logit-bias", "5"}, "--logit-bias is \"5\""},
      {{"--prompt", "x", "--logit-bias", "a=1"}, "--logit-bias is \"a=1\""},
      {{"--prompt", "x", "--time-limit-ms", "0"}, "time_limit_ms is 0"},
      {{"--input", "/no/such/file"}, "/no/such/file"},
  };
  for (const Mistake& mistake : mistakes) {
    const auto requests = Parse(mistake.arguments);
    ASSERT_TRUE(requests.has_value()) << mistake.message;
    EXPECT_THAT(Message(requests->status()), HasSubstr(mistake.message));
  }
}

TEST(GenerateFlagsTest, TheParserRefusesWhatIsNoValue) {
  ::testing::internal::CaptureStderr();
  EXPECT_FALSE(Parse({"--prompt", "x", "--top-k", "many"}).has_value());
  EXPECT_FALSE(Parse({"--prompt", "x", "--seed", "-1"}).has_value());
  EXPECT_FALSE(Parse({"--prompt", "x", "--dtype", "int3"}).has_value());
  EXPECT_FALSE(Parse({"--prompt", "x", "--target", "h:1", "--tp", "2"}).has_value());
  EXPECT_FALSE(Parse({"--prompt", "x", "--no-such-option"}).has_value());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("--no-such-option"));
}

TEST(PromptLinesTest, ReadsBothKindsAndSkipsEmptyLines) {
  ASSERT_OK_AND_ASSIGN(
      const auto prompts,
      ParsePromptLines("{\"prompt\": \"春\\n\"}\r\n\n  \n{\"ids\": [1, 2], \"more\": 3}"));
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].text(), "春\n");
  EXPECT_THAT(prompts[1].token_ids().ids(), ElementsAre(1, 2));
}

TEST(PromptLinesTest, NamesTheLineThatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "there are no lines"},
      {"{\"prompt\": \"a\"}\nx", "line 2 is no JSON object"},
      {"[1]", "line 1 is no JSON object"},
      {"{}", "line 1 has neither \"prompt\" nor \"ids\""},
      {"{\"prompt\": \"a\", \"ids\": [1]}", "line 1 has both \"prompt\" and \"ids\""},
      {"{\"prompt\": 5}", "of type number"},
      {"{\"ids\": 5}", "of type number"},
      {"{\"ids\": [1, -1]}", "has -1 among its \"ids\""},
      {"{\"ids\": [1.5]}", "has 1.5 among its \"ids\""},
      {"{\"ids\": [4294967296]}", "has 4294967296 among its \"ids\""},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(ParsePromptLines(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  }
}

v1::StreamGenerateResponse FirstPiece() {
  v1::StreamGenerateResponse piece;
  piece.add_prompt_ids(7);
  piece.set_text_delta("春");
  piece.add_ids(1);
  piece.set_seed(5);
  return piece;
}

v1::StreamGenerateResponse LastPiece() {
  v1::StreamGenerateResponse piece;
  piece.set_text_delta("风");
  piece.add_ids(2);
  piece.add_ids(3);
  piece.set_seed(5);
  piece.set_finish_reason(v1::FINISH_REASON_STOP);
  piece.set_stop_string("。");
  piece.mutable_usage()->set_prompt_tokens(1);
  piece.mutable_usage()->set_completion_tokens(3);
  return piece;
}

TEST(ResultJsonTest, PiecesAddUpToTheWhole) {
  v1::StreamGenerateResponse whole;
  MergePiece(FirstPiece(), &whole);
  MergePiece(LastPiece(), &whole);
  const std::string line = ToLine(WholeJson(whole));
  EXPECT_THAT(
      line,
      HasSubstr("{\"prompt_ids\":[7],\"ids\":[1,2,3],\"text\":\"春风\",\"finish_reason\":\"stop\","
                "\"stop_string\":\"。\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":3,"));
  EXPECT_THAT(line, HasSubstr("\"seed\":5"));
}

TEST(ResultJsonTest, OnlyTheLastPieceHasReasonAndUsage) {
  EXPECT_EQ(ToLine(PieceJson(FirstPiece())), "{\"text\":\"春\",\"ids\":[1]}");
  EXPECT_THAT(ToLine(PieceJson(LastPiece())),
              HasSubstr("{\"text\":\"风\",\"ids\":[2,3],\"finish_reason\":\"stop\""));
}

TEST(ResultJsonTest, LogprobsCarryBytesAsNumbers) {
  v1::StreamGenerateResponse piece = FirstPiece();
  v1::PositionLogprobs* position = piece.add_logprobs();
  position->mutable_token()->set_id(1);
  position->mutable_token()->set_logprob(-0.5);
  position->mutable_token()->set_bytes("\xe6\x98");
  position->add_top()->set_id(9);
  const Json logprobs = PieceJson(piece)["logprobs"];
  EXPECT_EQ(ToLine(logprobs),
            "[{\"id\":1,\"logprob\":-0.5,\"bytes\":[230,152],"
            "\"top\":[{\"id\":9,\"logprob\":0.0,\"bytes\":[]}]}]");
}

}  // namespace
}  // namespace hanlin::cli
