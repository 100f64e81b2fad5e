// A worker group as its leader sees it: one call runs a step on all ranks. The leader broadcasts
// the plan, and followers, which sit in FollowerLoop, run the same forward pass. With one rank it
// is a plain call of the model.
//
// Thread safety: RunStep, Ping and Shutdown are called by one thread at a time.
#ifndef HANLIN_MODEL_FORWARD_TP_GROUP_H_
#define HANLIN_MODEL_FORWARD_TP_GROUP_H_

#include <cstddef>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "model/comm/communicator.h"
#include "model/forward/forward_model.h"

namespace hanlin {

class TpGroup {
 public:
  // Rank 0's model and communicator; both must outlive the group.
  TpGroup(ForwardModel* model, Communicator* communicator)
      : model_(*model), communicator_(*communicator) {}

  // ForwardModel::Run on all ranks. INVALID_ARGUMENT is found before anything is sent and harms
  // nothing; any other error aborts the group.
  absl::Status RunStep(const StepBatch& batch, std::span<float> logits);

  // Asks every rank for a sign of life: UNAVAILABLE naming a rank that is dead or stopped. Call it
  // every second or so while idle; a busy group is checked by its steps.
  absl::Status Ping();

  // Ends the followers' loops. Their FollowerLoop returns OK.
  absl::Status Shutdown();

 private:
  ForwardModel& model_;
  Communicator& communicator_;
  std::vector<std::byte> message_;
};

// Ranks 1..: runs what the leader sends until it shuts down (OK) or the group ends (UNAVAILABLE).
absl::Status FollowerLoop(ForwardModel* model, Communicator* communicator);

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_TP_GROUP_H_
