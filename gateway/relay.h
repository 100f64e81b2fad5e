// One continuation on its way from worker events to the pieces a client sees: text (TextRelay),
// ids, log-probabilities with bytes, finish reason, usage, timings, seed. Append only ever adds to
// the message it is given, so appending every event to one message gives the unary answer and
// appending each to its own gives the stream: the two cannot differ.
//
// Not thread-safe: one object per continuation. Knows no gRPC.
#ifndef HANLIN_GATEWAY_RELAY_H_
#define HANLIN_GATEWAY_RELAY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gateway/text_relay.h"
#include "hanlin/v1/text_generation.pb.h"
#include "hanlin/v1/worker.pb.h"

namespace hanlin {

class ChoiceRelay {
 public:
  struct Options {
    std::shared_ptr<const DecoderSpec> spec;
    // The ids fed to the model; in the first piece.
    std::vector<int32_t> prompt_ids;
    // Read by Create only.
    const v1::StoppingParameters* stopping = nullptr;
    // Text that leads the first piece (echo).
    std::string lead_text;
    uint64_t seed = 0;
    // When the request went to the worker.
    absl::Time start;
  };
  enum class Outcome {
    kRunning,
    kFinished,  // The worker has ended the request.
    kStopped,   // A stop string was met: the worker is to be told to abort.
  };
  static absl::StatusOr<ChoiceRelay> Create(Options options);

  // Adds what `event`, which carries no error, brings to *piece.
  Outcome Append(const v1::RequestEvent& event, absl::Time now, v1::StreamGenerateResponse* piece);

  // True once anything was handed out; such a request cannot be retried.
  bool started() const { return started_; }
  int32_t prompt_tokens() const { return static_cast<int32_t>(options_.prompt_ids.size()); }
  int32_t completion_tokens() const { return text_.num_ids(); }
  // Time of the first id; InfiniteFuture before it.
  absl::Time first_token_time() const { return first_token_time_; }

 private:
  ChoiceRelay(Options options, TextRelay text);

  void AppendFirst(v1::StreamGenerateResponse* piece);
  void AppendLogprobs(const v1::PositionLogprobs& from, v1::StreamGenerateResponse* piece) const;
  // True when the text of the last id of `event` does not belong to the continuation.
  bool EndsWithoutText(const v1::RequestEvent& event) const;
  void Finish(const v1::RequestEvent& event, absl::Time now, v1::StreamGenerateResponse* piece);
  void FillMeasured(absl::Time now, v1::StreamGenerateResponse* piece) const;

  Options options_;
  std::vector<std::string> stop_strings_;
  bool include_stop_ = false;
  TextRelay text_;
  bool started_ = false;
  absl::Time first_token_time_ = absl::InfiniteFuture();
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_RELAY_H_
