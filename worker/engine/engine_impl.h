// The inside of Engine. The engine's thread owns scheduler, sequences, plan and executor; other
// threads leave requests and aborts in the inbox and read the load that is published after each
// step.
#ifndef HANLIN_WORKER_ENGINE_ENGINE_IMPL_H_
#define HANLIN_WORKER_ENGINE_ENGINE_IMPL_H_

#include <atomic>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "worker/engine/admission.h"
#include "worker/engine/engine.h"
#include "worker/engine/event_router.h"
#include "worker/engine/scheduler.h"
#include "worker/engine/watchdog.h"

namespace hanlin {

class Engine::Impl {
 public:
  Impl(Options options, std::unique_ptr<Executor> executor);
  ~Impl();

  SubmitResult Submit(GenerationRequest request, std::shared_ptr<EventSink> sink);
  void Abort(const RequestKey& key);
  void AbortAll(const EventSink* sink);
  void Wake();
  void BeginDrain() { draining_.store(true); }
  bool WaitIdle(absl::Duration timeout) const { return router_.WaitEmpty(timeout); }
  EngineLoad load() const;
  absl::Status health() const { return router_.failure(); }
  const ModelConfig& config() const { return options_.config; }
  const RequestDefaults& defaults() const { return defaults_; }

 private:
  struct Inbox {
    std::vector<std::unique_ptr<Sequence>> arrivals;
    std::vector<RequestKey> aborts;
    std::vector<const EventSink*> gone_sinks;
    bool wake = false;
    bool stop = false;

    bool empty() const {
      return arrivals.empty() && aborts.empty() && gone_sinks.empty() && !wake && !stop;
    }
  };

  // From any thread.
  absl::Status CheckFits(const ResolvedRequest& request) const;
  void Fail(const absl::Status& cause);

  // The engine's thread.
  void Run();
  bool TakeInbox();  // false: stop
  void ExpireRequests(absl::Time now);
  void MarkPaused();
  // A step that was begun.
  struct InFlight {
    std::vector<Scheduler::Scheduled> scheduled;  // a sequence that ended meanwhile is null
    StepRecord record;
    absl::Time begin;
    bool holds_next = false;  // its draws are needed before the next step can be planned
  };
  absl::Status Advance();
  bool MayBegin() const;
  absl::Status BeginStep();
  absl::Status FinishStep();
  void NoteFirstStep(absl::Time now);
  void TakeToken(Sequence* sequence, SampledToken* token, absl::Time now);
  absl::Status WaitForWork();
  // Takes the sequence out and stages its last event.
  void Finish(Sequence* sequence, RequestEvent event, absl::Time now);
  // Takes the sequence out without an event.
  void Discard(Sequence* sequence, absl::Time now);
  void PublishLoad();

  const Options options_;
  const RequestDefaults defaults_;
  const std::unique_ptr<Executor> executor_;
  std::atomic<bool> draining_ = false;
  Admission admission_;
  EventRouter router_;

  mutable absl::Mutex mutex_;
  Inbox inbox_ ABSL_GUARDED_BY(mutex_);
  EngineLoad load_ ABSL_GUARDED_BY(mutex_);

  // The engine's thread.
  Scheduler scheduler_;
  absl::flat_hash_map<RequestKey, std::unique_ptr<Sequence>> sequences_;
  StepPlan plan_;
  std::deque<InFlight> in_flight_;
  absl::Time last_finish_ = absl::InfinitePast();
  StepOutput output_;
  uint64_t steps_ = 0;
  absl::Time last_ping_ = absl::InfinitePast();

  std::atomic<uint64_t> own_heartbeat_ = 0;
  std::atomic<uint64_t>& heartbeat_;
  Watchdog watchdog_;
  std::thread thread_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_ENGINE_IMPL_H_
