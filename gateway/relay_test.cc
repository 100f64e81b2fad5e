// The law of the relay: whatever the ids arrive in, the pieces put together are the unary answer
// and the decoded text cut at its first stop string. Plus what each finish reason does to the text.
#include "gateway/relay.h"

#include <random>

#include "common/testing/testing.h"
#include "gateway/chunk_queue.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {
using ::testing::ElementsAre;

// Bytes: ids 0-3 spell parts of characters, so texts break inside characters and inside stops.
std::shared_ptr<const DecoderSpec> ByteSpec() {
  auto spec = std::make_shared<DecoderSpec>();
  spec->kind = DecoderSpec::Kind::kBytes;
  spec->pieces = {"\xE6", "\x98\xA5", "a", "b", "ab", "春", "。", "\n"};
  spec->attributes.assign(spec->pieces.size(), 0);
  return spec;
}

v1::RequestEvent Event(std::vector<int32_t> ids,
                       v1::FinishReason reason = v1::FINISH_REASON_UNSPECIFIED) {
  v1::RequestEvent event;
  event.mutable_ids()->Add(ids.begin(), ids.end());
  event.set_finish_reason(reason);
  return event;
}

ChoiceRelay MakeRelay(const v1::StoppingParameters& stopping, std::string lead = "") {
  auto relay = ChoiceRelay::Create({.spec = ByteSpec(),
                                    .prompt_ids = {5, 5},
                                    .stopping = &stopping,
                                    .lead_text = std::move(lead),
                                    .seed = 42,
                                    .start = absl::Now()});
  return *std::move(relay);
}

// The whole text by the definition: decode, cut at the stop that ends first (the longest of those).
std::string Expected(const std::vector<int32_t>& ids, const std::vector<std::string>& stops,
                     bool include) {
  std::string text = StreamDecoder::Decode(*ByteSpec(), ids);
  size_t end = std::string::npos;
  size_t length = 0;
  for (const std::string& stop : stops) {
    const size_t begin = text.find(stop);
    if (begin == std::string::npos) continue;
    const size_t stop_end = begin + stop.size();
    if (stop_end < end || (stop_end == end && stop.size() > length)) {
      end = stop_end;
      length = stop.size();
    }
  }
  if (end == std::string::npos) return text;
  return text.substr(0, include ? end : end - length);
}

TEST(RelayTest, StreamedEqualsUnaryForRandomStopsAndSplits) {
  std::mt19937 random(1);
  const auto below = [&](size_t n) { return random() % n; };
  const std::vector<std::string> candidates = {"ab", "ba", "春", "春a", "b。", "aab", "\n"};
  for (int round = 0; round < 3000; ++round) {
    std::vector<int32_t> ids(1 + below(24));
    for (int32_t& id : ids) id = static_cast<int32_t>(below(8));
    v1::StoppingParameters stopping;
    for (size_t i = below(4); i > 0; --i) {
      stopping.add_stop_strings(candidates[below(candidates.size())]);
    }
    stopping.set_include_stop(below(2) == 0);
    ChoiceRelay streamed = MakeRelay(stopping);
    ChoiceRelay unary = MakeRelay(stopping);
    std::string text;
    v1::StreamGenerateResponse last;
    v1::StreamGenerateResponse whole;
    for (size_t begin = 0; begin < ids.size();) {
      const size_t end = std::min(ids.size(), begin + 1 + below(4));
      const auto event =
          Event({ids.begin() + begin, ids.begin() + end},
                end == ids.size() ? v1::FINISH_REASON_LENGTH : v1::FINISH_REASON_UNSPECIFIED);
      begin = end;
      last.Clear();
      const auto outcome = streamed.Append(event, absl::Now(), &last);
      ASSERT_EQ(outcome, unary.Append(event, absl::Now(), &whole));
      ASSERT_EQ(ValidUtf8Prefix(last.text_delta()), last.text_delta().size());
      text += last.text_delta();
      if (outcome != ChoiceRelay::Outcome::kRunning) break;
    }
    const std::vector<std::string> stops(stopping.stop_strings().begin(),
                                         stopping.stop_strings().end());
    ASSERT_EQ(text, Expected(ids, stops, stopping.include_stop())) << round;
    ASSERT_EQ(whole.text_delta(), text);
    ASSERT_EQ(whole.finish_reason(), last.finish_reason());
    ASSERT_EQ(whole.stop_string(), last.stop_string());
    ASSERT_EQ(whole.ids_size(), whole.usage().completion_tokens());
    ASSERT_EQ(last.usage().completion_tokens(), whole.usage().completion_tokens());
  }
}

TEST(RelayTest, AStopStringEndsWithTheTokenThatCompletedItAndNamesItself) {
  v1::StoppingParameters stopping;
  stopping.add_stop_strings("春a");
  ChoiceRelay relay = MakeRelay(stopping);
  v1::StreamGenerateResponse piece;
  EXPECT_EQ(relay.Append(Event({3, 0}), absl::Now(), &piece), ChoiceRelay::Outcome::kRunning);
  EXPECT_EQ(piece.text_delta(), "b");
  EXPECT_EQ(piece.seed(), 42);
  EXPECT_EQ(piece.prompt_ids_size(), 2);
  piece.Clear();
  EXPECT_EQ(relay.Append(Event({1, 2, 3, 3}), absl::Now(), &piece), ChoiceRelay::Outcome::kStopped);
  EXPECT_EQ(piece.text_delta(), "");
  EXPECT_EQ(piece.ids_size(), 2);
  EXPECT_EQ(piece.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(piece.stop_string(), "春a");
  EXPECT_EQ(piece.usage().prompt_tokens(), 2);
  EXPECT_EQ(piece.usage().completion_tokens(), 4);
  EXPECT_EQ(piece.seed(), 42);
  EXPECT_EQ(piece.prompt_ids_size(), 0);
}

TEST(RelayTest, EndTokensHaveNoTextAndStopIdsOnlyOnRequest) {
  for (const auto& [reason, include, text] : {std::tuple{v1::FINISH_REASON_END_TOKEN, true, "a"},
                                              std::tuple{v1::FINISH_REASON_STOP, false, "a"},
                                              std::tuple{v1::FINISH_REASON_STOP, true, "ab"},
                                              std::tuple{v1::FINISH_REASON_LENGTH, false, "ab"}}) {
    v1::StoppingParameters stopping;
    stopping.set_include_stop(include);
    ChoiceRelay relay = MakeRelay(stopping);
    v1::StreamGenerateResponse piece;
    auto event = Event({2, 3}, reason);
    event.set_stop_id(3);
    EXPECT_EQ(relay.Append(event, absl::Now(), &piece), ChoiceRelay::Outcome::kFinished);
    EXPECT_EQ(piece.text_delta(), text);
    EXPECT_EQ(piece.ids_size(), 2);
    EXPECT_EQ(piece.usage().completion_tokens(), 2);
    EXPECT_EQ(piece.stop_id(), 3);
  }
}

TEST(RelayTest, StopStringsWaitForMinNewTokens) {
  v1::StoppingParameters stopping;
  stopping.add_stop_strings("a");
  stopping.set_min_new_tokens(2);
  ChoiceRelay relay = MakeRelay(stopping);
  v1::StreamGenerateResponse whole;
  EXPECT_EQ(relay.Append(Event({2, 2}), absl::Now(), &whole), ChoiceRelay::Outcome::kRunning);
  EXPECT_EQ(relay.Append(Event({2}), absl::Now(), &whole), ChoiceRelay::Outcome::kStopped);
  EXPECT_EQ(whole.text_delta(), "aa");
}

// The texts of the pieces that `ids` make, one id an event; the last event has `reason`.
std::vector<std::string> PieceTexts(const std::string& stop, const std::vector<int32_t>& ids,
                                    v1::FinishReason reason, v1::StreamGenerateResponse* last) {
  v1::StoppingParameters stopping;
  stopping.add_stop_strings(stop);
  ChoiceRelay relay = MakeRelay(stopping);
  std::vector<std::string> texts;
  for (size_t i = 0; i < ids.size(); ++i) {
    last->Clear();
    const bool at_end = i + 1 == ids.size();
    const auto outcome = relay.Append(
        Event({ids[i]}, at_end ? reason : v1::FINISH_REASON_UNSPECIFIED), absl::Now(), last);
    texts.push_back(last->text_delta());
    if (outcome != ChoiceRelay::Outcome::kRunning) break;
  }
  return texts;
}

TEST(RelayTest, AStopOverManyPiecesNeverShowsItsBeginning) {
  v1::StreamGenerateResponse last;
  // "b", then "a春b" whose middle character comes in two parts.
  EXPECT_THAT(PieceTexts("a春b", {3, 2, 0, 1, 3, 6}, v1::FINISH_REASON_LENGTH, &last),
              ElementsAre("b", "", "", "", ""));
  EXPECT_EQ(last.stop_string(), "a春b");
  EXPECT_EQ(last.usage().completion_tokens(), 5);
  // A near miss comes out as soon as it is one, a new beginning within it stays back.
  EXPECT_THAT(PieceTexts("a春b", {2, 5, 2, 5, 6, 2}, v1::FINISH_REASON_LENGTH, &last),
              ElementsAre("", "", "a春", "", "a春。", "a"));
}

TEST(RelayTest, WhatWasWithheldComesWithTheEndWhateverItsReason) {
  for (const auto reason :
       {v1::FINISH_REASON_LENGTH, v1::FINISH_REASON_TIME_LIMIT, v1::FINISH_REASON_CANCELLED}) {
    v1::StreamGenerateResponse last;
    EXPECT_THAT(PieceTexts("a春b", {2, 5}, reason, &last), ElementsAre("", "a春"));
    EXPECT_EQ(last.finish_reason(), reason);
    EXPECT_EQ(last.stop_string(), "");
  }
  v1::StreamGenerateResponse last;
  EXPECT_THAT(PieceTexts("a春b", {2, 5, 7}, v1::FINISH_REASON_END_TOKEN, &last),
              ElementsAre("", "", "a春"));
}

TEST(RelayTest, ATextThatEndsWithinACharacterEndsWithAReplacement) {
  v1::StreamGenerateResponse last;
  EXPECT_THAT(PieceTexts("x", {2, 0}, v1::FINISH_REASON_LENGTH, &last), ElementsAre("a", "\uFFFD"));
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_LENGTH);
  // That replacement may complete a stop string.
  EXPECT_THAT(PieceTexts("a\uFFFD", {3, 2, 0}, v1::FINISH_REASON_LENGTH, &last),
              ElementsAre("b", "", ""));
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(last.stop_string(), "a\uFFFD");
}

TEST(RelayTest, FiguresOfAStoppedTextAreTheGateways) {
  v1::StoppingParameters stopping;
  stopping.add_stop_strings("ab");
  const absl::Time start = absl::Now();
  auto relay = ChoiceRelay::Create(
      {.spec = ByteSpec(), .prompt_ids = {5}, .stopping = &stopping, .seed = 1, .start = start});
  ASSERT_OK(relay);
  v1::StreamGenerateResponse piece;
  relay->Append(Event({5}), start + absl::Milliseconds(3), &piece);
  relay->Append(Event({4}), start + absl::Milliseconds(10), &piece);
  EXPECT_EQ(piece.text_delta(), "春");
  EXPECT_EQ(piece.timings().time_to_first_token_us(), 3000);
  EXPECT_EQ(piece.timings().total_us(), 10000);
}

TEST(RelayTest, EchoLeadsTheFirstPieceAndIsNotSearched) {
  v1::StoppingParameters stopping;
  stopping.add_stop_strings("春");
  ChoiceRelay relay = MakeRelay(stopping, "春");
  v1::StreamGenerateResponse piece;
  EXPECT_EQ(relay.Append(Event({2}), absl::Now(), &piece), ChoiceRelay::Outcome::kRunning);
  EXPECT_EQ(piece.text_delta(), "春a");
}

TEST(RelayTest, LogprobsGetTheBytesOfTheirTokens) {
  ChoiceRelay relay = MakeRelay({});
  auto event = Event({0});
  auto* logprobs = event.add_logprobs();
  logprobs->mutable_token()->set_id(0);
  logprobs->mutable_token()->set_logprob(-1);
  logprobs->add_top()->set_id(5);
  v1::StreamGenerateResponse piece;
  relay.Append(event, absl::Now(), &piece);
  EXPECT_EQ(piece.logprobs(0).token().bytes(), "\xE6");
  EXPECT_EQ(piece.logprobs(0).top(0).bytes(), "春");
}

TEST(ChunkQueueTest, ALaggingReaderGetsMergedPiecesInOrder) {
  ChunkQueue queue;
  std::string sent;
  for (int i = 0; i < 1000; ++i) {
    queue.Tail()->mutable_text_delta()->push_back(static_cast<char>('a' + i % 26));
    sent.push_back(static_cast<char>('a' + i % 26));
  }
  EXPECT_EQ(queue.size(), ChunkQueue::kMaxPieces);
  std::string received;
  for (int64_t number = 0; !queue.empty(); ++number) {
    EXPECT_EQ(queue.Front().sequence_number(), number);
    received += queue.Front().text_delta();
    queue.PopFront();
  }
  EXPECT_EQ(received, sent);
  EXPECT_EQ(queue.Tail()->sequence_number(), static_cast<int64_t>(ChunkQueue::kMaxPieces));
  EXPECT_TRUE(queue.Front().text_delta().empty());
}

}  // namespace
}  // namespace hanlin
