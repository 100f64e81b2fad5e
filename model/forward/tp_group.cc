// See tp_group.h. A message is one int32 kind, and for a step the serialised plan behind it.
#include "model/forward/tp_group.h"

#include <cstring>

#include "common/status/status.h"

namespace hanlin {
namespace {

enum class Command : int32_t { kStep = 1, kPing = 2, kShutdown = 3 };

// How long a follower takes to come back for the next message is bounded by the communicator's own
// timeout.
absl::Status Send(Command command, Communicator& communicator, std::vector<std::byte>* message) {
  std::memcpy(message->data(), &command, sizeof(command));
  return communicator.Broadcast(message, absl::InfiniteDuration());
}

absl::Status RunCommand(const std::vector<std::byte>& message, ForwardModel& model,
                        Communicator& communicator, bool* done) {
  Command command = {};
  if (message.size() < sizeof(command)) return Internal("empty message from rank 0");
  std::memcpy(&command, message.data(), sizeof(command));
  switch (command) {
    case Command::kStep: {
      ASSIGN_OR_RETURN(const StepBatch step,
                       ParseStep(std::span(message).subspan(sizeof(command))));
      return model.Run(step, {});
    }
    case Command::kPing:
      return communicator.Barrier();
    case Command::kShutdown:
      *done = true;
      return absl::OkStatus();
  }
  return Internal("unknown command {} from rank 0", static_cast<int32_t>(command));
}

}  // namespace

absl::Status TpGroup::RunStep(const StepBatch& batch, std::span<float> logits) {
  if (communicator_.size() == 1) return model_.Run(batch, logits);
  RETURN_IF_ERROR(model_.Check(batch, logits.size()));
  message_.resize(sizeof(Command));
  SerializeStep(batch, &message_);
  RETURN_IF_ERROR(Send(Command::kStep, communicator_, &message_));
  absl::Status status = model_.Run(batch, logits);
  if (!status.ok()) communicator_.Abort(Message(status));
  return status;
}

absl::Status TpGroup::Ping() {
  message_.resize(sizeof(Command));
  RETURN_IF_ERROR(Send(Command::kPing, communicator_, &message_));
  return communicator_.Barrier();
}

absl::Status TpGroup::Shutdown() {
  message_.resize(sizeof(Command));
  return Send(Command::kShutdown, communicator_, &message_);
}

absl::Status FollowerLoop(ForwardModel* model, Communicator* communicator) {
  std::vector<std::byte> message;
  bool done = false;
  while (!done) {
    RETURN_IF_ERROR(communicator->Broadcast(&message, absl::InfiniteDuration()));
    const absl::Status status = RunCommand(message, *model, *communicator, &done);
    if (!status.ok()) {
      communicator->Abort(Message(status));  // the first reason stays
      return absl::IsUnavailable(status) ? status : communicator->Check();
    }
  }
  return absl::OkStatus();
}

}  // namespace hanlin
