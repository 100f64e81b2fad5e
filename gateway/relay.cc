// See relay.h.
#include "gateway/relay.h"

#include <utility>

#include "common/status/status.h"

namespace hanlin {

absl::StatusOr<ChoiceRelay> ChoiceRelay::Create(Options options) {
  TextRelay::Options text = {.spec = options.spec, .prompt_ids = options.prompt_ids};
  if (options.stopping != nullptr) {
    text.stop_strings.assign(options.stopping->stop_strings().begin(),
                             options.stopping->stop_strings().end());
    text.include_stop = options.stopping->include_stop();
    text.min_new_tokens = options.stopping->min_new_tokens();
  }
  ASSIGN_OR_RETURN(TextRelay relay, TextRelay::Create(text));
  ChoiceRelay choice(std::move(options), std::move(relay));
  choice.stop_strings_ = std::move(text.stop_strings);
  choice.include_stop_ = text.include_stop;
  choice.options_.stopping = nullptr;
  return choice;
}

ChoiceRelay::ChoiceRelay(Options options, TextRelay text)
    : options_(std::move(options)), text_(std::move(text)) {}

ChoiceRelay::Outcome ChoiceRelay::Append(const v1::RequestEvent& event, absl::Time now,
                                         v1::StreamGenerateResponse* piece) {
  if (!started_) AppendFirst(piece);
  if (event.ids_size() > 0 && first_token_time_ == absl::InfiniteFuture()) first_token_time_ = now;
  const int textless = EndsWithoutText(event) ? event.ids_size() - 1 : event.ids_size();
  for (int i = 0; i < event.ids_size(); ++i) {
    piece->add_ids(event.ids(i));
    if (i < event.logprobs_size()) AppendLogprobs(event.logprobs(i), piece);
    if (i >= textless) {
      text_.Skip();
    } else if (text_.Push(event.ids(i), piece->mutable_text_delta())) {
      FillMeasured(now, piece);
      return Outcome::kStopped;
    }
  }
  if (event.finish_reason() == v1::FINISH_REASON_UNSPECIFIED) return Outcome::kRunning;
  Finish(event, now, piece);
  return Outcome::kFinished;
}

void ChoiceRelay::AppendFirst(v1::StreamGenerateResponse* piece) {
  started_ = true;
  piece->set_seed(options_.seed);
  piece->mutable_prompt_ids()->Add(options_.prompt_ids.begin(), options_.prompt_ids.end());
  piece->mutable_text_delta()->append(options_.lead_text);
}

void ChoiceRelay::AppendLogprobs(const v1::PositionLogprobs& from,
                                 v1::StreamGenerateResponse* piece) const {
  const auto fill_bytes = [this](v1::TokenLogprob* token) {
    const std::string_view bytes = options_.spec->TokenBytes(token->id());
    token->set_bytes(bytes.data(), bytes.size());
  };
  v1::PositionLogprobs* to = piece->add_logprobs();
  *to = from;
  fill_bytes(to->mutable_token());
  for (v1::TokenLogprob& token : *to->mutable_top()) fill_bytes(&token);
}

bool ChoiceRelay::EndsWithoutText(const v1::RequestEvent& event) const {
  switch (event.finish_reason()) {
    case v1::FINISH_REASON_END_TOKEN:
      return true;
    case v1::FINISH_REASON_STOP:
      return !include_stop_;
    default:
      return false;
  }
}

void ChoiceRelay::Finish(const v1::RequestEvent& event, absl::Time now,
                         v1::StreamGenerateResponse* piece) {
  if (text_.Flush(piece->mutable_text_delta())) {  // The withheld text completed a stop string.
    FillMeasured(now, piece);
  } else {
    piece->set_finish_reason(event.finish_reason());
    if (event.has_stop_id()) piece->set_stop_id(event.stop_id());
  }
  // The worker's own figures where it gave them; they agree with ours on the tokens.
  piece->set_seed(options_.seed);
  if (event.has_timings()) *piece->mutable_timings() = event.timings();
  v1::Usage* usage = piece->mutable_usage();
  usage->set_prompt_tokens(prompt_tokens());
  usage->set_completion_tokens(completion_tokens());
  usage->set_cached_prompt_tokens(event.usage().cached_prompt_tokens());
}

// The end of a text that a stop string ended: the worker does not know that it has ended, so the
// figures are the gateway's.
void ChoiceRelay::FillMeasured(absl::Time now, v1::StreamGenerateResponse* piece) const {
  piece->set_finish_reason(v1::FINISH_REASON_STOP);
  piece->set_stop_string(stop_strings_[text_.stop().value()]);
  piece->set_seed(options_.seed);
  v1::Usage* usage = piece->mutable_usage();
  usage->set_prompt_tokens(prompt_tokens());
  usage->set_completion_tokens(completion_tokens());
  v1::Timings* timings = piece->mutable_timings();
  timings->set_time_to_first_token_us(
      absl::ToInt64Microseconds(first_token_time_ - options_.start));
  timings->set_total_us(absl::ToInt64Microseconds(now - options_.start));
}

}  // namespace hanlin
