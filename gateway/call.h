// One prompt from arrival to end:
//
//   Start ─▶ tokenize ─▶ admit its tokens ─▶ choose a group ─▶ events ─▶ relay ─▶ output ─▶ Done
//                                                ▲      │
//                                                └──────┘ group lost or full, nothing handed out
//                                                yet
//
// Runs on whatever thread brings the next event (gRPC's, the ticking one); no thread of its own.
// Thread-safe. One lock a call, which nobody else contends for in the normal case. Lock order: the
// call's lock, then a group's or the output's; Done is called with no lock held.
#ifndef HANLIN_GATEWAY_CALL_H_
#define HANLIN_GATEWAY_CALL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gateway/admission.h"
#include "gateway/group_set.h"
#include "gateway/metrics.h"
#include "gateway/relay.h"
#include "gateway/tokenizer_client.h"
#include "gateway/worker_group.h"
#include "hanlin/v1/text_generation.pb.h"

namespace hanlin {

// What calls work with; outlives them while they are unfinished.
struct CallEnvironment {
  TokenizerClient* tokenizer = nullptr;
  GroupSet* groups = nullptr;
  Admission* admission = nullptr;
  GatewayMetrics* metrics = nullptr;
};

// Where the continuation goes.
class CallOutput {
 public:
  virtual ~CallOutput() = default;
  // Lets `fill` append to the next piece; it returns true when the continuation ends with it, and
  // then Done(OK) follows at once.
  virtual void Emit(absl::FunctionRef<bool(v1::StreamGenerateResponse*)> fill) = 0;
  // The end; called exactly once, nothing follows.
  virtual void Done(const absl::Status& status) = 0;
};

class GenerationCall : public RequestSink, public std::enable_shared_from_this<GenerationCall> {
 public:
  struct Options {
    std::string request_id;
    // Validated; must stay until Done.
    const v1::Prompt* prompt = nullptr;
    const v1::GenerationParameters* parameters = nullptr;
    absl::Time arrival;
    absl::Time deadline = absl::InfiniteFuture();
  };
  struct Figures {
    int32_t prompt_tokens = 0;
    int32_t completion_tokens = 0;
    absl::Time first_token_time = absl::InfiniteFuture();
  };

  GenerationCall(const CallEnvironment& environment, Options options,
                 std::shared_ptr<CallOutput> output);

  void Start();
  // Ends the call with `why` unless it has ended; the worker is told in the same breath.
  void Cancel(const absl::Status& why);
  Figures figures() const;

  // RequestSink.
  void OnEvent(const v1::RequestEvent& event, absl::Time now) override;
  void OnLost(uint64_t id, const absl::Status& why) override;

 private:
  // Calls Done when it goes out of scope: declared before the lock is taken, so it runs after that.
  struct Completion {
    std::shared_ptr<CallOutput> output;
    absl::Status status;
    ~Completion() {
      if (output != nullptr) output->Done(status);
    }
  };

  void OnIds(absl::StatusOr<std::vector<int32_t>> ids);
  absl::Status Prepare(std::vector<int32_t> ids) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Hands the request to a group, or ends the call with `otherwise` when there is none.
  void Dispatch(const absl::Status& otherwise, Completion* completion)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnError(const v1::RequestEvent& event, Completion* completion)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Retry(const absl::Status& why);
  void OnFirstToken(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const absl::Status& status, Completion* completion)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CallEnvironment environment_;
  const Options options_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<CallOutput> output_ ABSL_GUARDED_BY(mutex_);  // Null once finished.
  std::shared_ptr<const TokenizerIdentity> tokenizer_ ABSL_GUARDED_BY(mutex_);
  std::optional<ChoiceRelay> relay_ ABSL_GUARDED_BY(mutex_);
  Admission::Ticket prompt_ticket_ ABSL_GUARDED_BY(mutex_);  // Until the first token.
  v1::WorkerRequest request_ ABSL_GUARDED_BY(mutex_);        // Its id is that of the last attempt.
  std::shared_ptr<WorkerGroup> group_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<WorkerGroup>> full_groups_ ABSL_GUARDED_BY(mutex_);
  int attempts_ ABSL_GUARDED_BY(mutex_) = 0;
  bool has_token_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_CALL_H_
