// One open request inside the engine: its ids so far, the KV blocks it holds and its clock. Owned
// by the engine's thread; the scheduler moves it between waiting and running.
#ifndef HANLIN_WORKER_ENGINE_SEQUENCE_H_
#define HANLIN_WORKER_ENGINE_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "worker/engine/prefix_cache.h"
#include "worker/engine/request.h"

namespace hanlin {

struct Sequence {
  ResolvedRequest request;  // request.ids grows with every token generated
  std::shared_ptr<EventSink> sink;
  std::vector<int32_t> banned;  // not to be drawn before min_new_tokens: end tokens and stop ids

  // Kept by the scheduler.
  uint64_t order = 0;  // of arrival; smaller came first
  bool running = false;
  bool paused = false;   // its reader lags: left out of steps
  int32_t computed = 0;  // ids whose keys and values are in `blocks`
  std::vector<int32_t> blocks;
  int32_t known_blocks = 0;  // leading blocks that went through the prefix cache, up to `chain`
  PrefixCache::Chain chain = PrefixCache::kRoot;
  int32_t preemptions = 0;
  std::optional<int32_t> cached_prompt_tokens;  // set when it first runs

  // Kept by the engine: draws that are under way, one per step in flight that samples it, and its
  // row in the newest of these steps.
  int32_t pending = 0;
  int32_t drawn_row = 0;

  // Kept by the engine.
  int64_t queued_tokens = 0;  // counted by Admission while it has not run
  absl::Time arrival;
  std::optional<absl::Time> first_step;
  std::optional<absl::Time> first_token;

  const std::vector<int32_t>& ids() const { return request.ids; }
  int32_t num_ids() const { return static_cast<int32_t>(request.ids.size()); }
  int32_t num_generated() const { return num_ids() - request.num_prompt_tokens; }
  // With those being drawn.
  int32_t total_ids() const { return num_ids() + pending; }
  // Ids that are not in the cache: 1 for a sequence that decodes.
  int32_t remaining() const { return total_ids() - computed; }
  // The draws under way are its last ones.
  bool ends_by_length() const { return num_generated() + pending >= request.max_new_tokens; }
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_SEQUENCE_H_
