// What the engine is asked and what it answers: token ids and numbers, no text, no gRPC. A request
// is a pure function of these values (law 5), so it can continue anywhere: `ids` beyond
// num_prompt_tokens were generated before.
//
// GenerationRequest is as the caller wrote it (unset = default); ResolveRequest turns it into a
// ResolvedRequest, in which everything is set and checked. `hanlin generate` and the worker's
// service both come through here.
#ifndef HANLIN_WORKER_ENGINE_REQUEST_H_
#define HANLIN_WORKER_ENGINE_REQUEST_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/sampling/sampling.h"
#include "model/config/config.h"

namespace hanlin {

// Bounds of lists in a request.
inline constexpr int kMaxLogprobs = 20;
inline constexpr size_t kMaxLogitBias = 4096;
inline constexpr size_t kMaxStopIds = 64;

// See SamplingParameters of protos/hanlin/v1/sampling.proto: same fields, ranges and defaults.
struct SamplingRequest {
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::vector<LogitBias> logit_bias;
  std::optional<uint64_t> seed;  // unset: chosen at random
};

// See StoppingParameters: stop strings are the gateway's, counts are of generated tokens.
struct StoppingRequest {
  std::optional<int32_t> max_new_tokens;
  std::optional<int32_t> min_new_tokens;
  std::optional<bool> ignore_eos;
  std::vector<int32_t> stop_ids;
  std::optional<int64_t> time_limit_ms;
};

struct GenerationRequest {
  uint64_t id = 0;                // the caller's, unique among the open requests of one EventSink
  std::string request_id;         // for logs
  std::vector<int32_t> ids;       // prompt, then what was generated so far
  int32_t num_prompt_tokens = 0;  // length of the prompt within ids
  SamplingRequest sampling;
  StoppingRequest stopping;
  std::optional<int32_t>
      logprobs;  // alternatives per token, 0..kMaxLogprobs; unset = no log-probabilities
  int32_t choice_index = 0;  // enters the draw
  absl::Time deadline = absl::InfiniteFuture();
};

// A request with every default filled in and every value checked.
struct ResolvedRequest {
  uint64_t id = 0;
  std::string request_id;
  std::vector<int32_t> ids;
  int32_t num_prompt_tokens = 0;
  SamplingParams sampling;
  std::vector<LogitBias> logit_bias;
  std::vector<int32_t> stop_ids;
  bool ignore_eos = false;
  int32_t max_new_tokens = 0;  // at least 1; prompt + max_new_tokens fits the context
  int32_t min_new_tokens = 0;
  int32_t logprobs = -1;  // -1: none
  absl::Duration time_limit = absl::InfiniteDuration();
  absl::Time deadline = absl::InfiniteFuture();
};

// The values used for what a request leaves unset, read from the model's folder or the house's
// defaults.
struct RequestDefaults {
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 0.9f;
  int32_t max_new_tokens = 100;  // before the room left in the context bounds it
};
RequestDefaults DefaultsOf(const ModelConfig& config);

// Checks `request` against the model and fills in what is unset. INVALID_ARGUMENT names field,
// value seen and value wanted.
absl::StatusOr<ResolvedRequest> ResolveRequest(GenerationRequest request,
                                               const ModelConfig& config);

enum class FinishReason { kNone, kStop, kLength, kEndToken, kTimeLimit, kCancelled };

// "stop", "length", "end_token", "time_limit", "cancelled"; "" for kNone.
std::string_view ToString(FinishReason reason);

// A token with its log-probability under the model's unmodified distribution, and the most probable
// ones.
struct PositionLogprobs {
  TokenLogprob token;
  std::vector<TokenLogprob> top;  // best first
};

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;  // the id that ended the text included
  int32_t cached_prompt_tokens = 0;
};

// Durations from the request's arrival at the engine.
struct Timings {
  absl::Duration queue;  // to the first step that held it
  absl::Duration time_to_first_token;
  absl::Duration total;  // to the last token
  int32_t preemptions = 0;
};

// What happened to one request in one step. The last event of a request has a finish_reason or an
// error.
struct RequestEvent {
  uint64_t id = 0;
  std::vector<int32_t> ids;
  std::vector<PositionLogprobs> logprobs;  // one per id when asked for
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<int32_t> stop_id;  // the stop id or end token that was met
  Usage usage;                     // in the last event
  Timings timings;                 // in the last event
  absl::Status error;              // ids that came before it stay valid

  bool last() const { return finish_reason != FinishReason::kNone || !error.ok(); }
};

// Takes the events of its owner's requests.
class EventSink {
 public:
  virtual ~EventSink() = default;

  // All events of this sink's requests in one step. Called by the engine's thread (or its
  // watchdog's), which waits: no blocking, and no call back into the engine. Events may be moved
  // from.
  virtual void OnEvents(std::span<RequestEvent> events) = 0;

  // False while the reader lags: its requests are then left out of the steps until Engine::Wake().
  virtual bool Ready() const { return true; }
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_REQUEST_H_
