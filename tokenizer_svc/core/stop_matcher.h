// Stop strings over a stream of text. Text passes through as soon as no stop can begin in it: only
// the longest suffix that is a proper prefix of some stop is withheld. The match is the one that
// ends first; of those that end at the same byte, the longest (it begins first). One Aho-Corasick
// automaton for all stops, so the cost is one step a byte.
//
// Not thread-safe: one object per stream. Copying is cheap (the automaton is shared).
#ifndef HANLIN_TOKENIZER_SVC_CORE_STOP_MATCHER_H_
#define HANLIN_TOKENIZER_SVC_CORE_STOP_MATCHER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace hanlin {

class StopMatcher {
 public:
  static constexpr size_t kMaxStops = 64;
  static constexpr size_t kMaxStopBytes = 1024;  // Of one stop string.

  struct Match {
    size_t stop;     // Index into the stops given to Create.
    uint64_t begin;  // Byte of the whole text where the stop begins …
    uint64_t end;    // … and where it ends.
  };

  // No stops: everything passes. INVALID_ARGUMENT: an empty stop, one that is not UTF-8, or too
  // many or too long.
  static absl::StatusOr<StopMatcher> Create(const std::vector<std::string>& stops,
                                            bool include_match = false);

  // The part of the text that is now safe to hand out. `text` is valid UTF-8 and so is the result.
  // Once a stop has matched, the text before it (with `include_match`: through its end) is returned
  // and everything after it is dropped.
  std::string Push(std::string_view text);

  // What is withheld, when no text follows; empty after a match.
  std::string Flush();

  // The stop that ended the text.
  const std::optional<Match>& match() const { return match_; }

 private:
  struct Automaton;
  StopMatcher(std::shared_ptr<const Automaton> automaton, bool include_match);

  std::shared_ptr<const Automaton> automaton_;
  bool include_match_;
  int32_t state_ = 0;
  uint64_t consumed_ = 0;  // Bytes seen.
  std::string held_;       // The last bytes seen that have not been handed out.
  std::optional<Match> match_;
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_STOP_MATCHER_H_
