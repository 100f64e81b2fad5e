// See group_set.h.
#include "gateway/group_set.h"

#include <algorithm>
#include <utility>

#include "common/obs/log.h"
#include "common/status/status.h"
#include "gateway/routing.h"

namespace hanlin {
namespace {

// Cancelled streams and calls end within milliseconds; this only bounds the wait.
constexpr absl::Duration kCloseTimeout = absl::Seconds(5);

}  // namespace

GroupSet::GroupSet(Options options) : options_(std::move(options)) {
  thread_ = std::thread([this] { Run(); });
}

GroupSet::~GroupSet() {
  stop_.Notify();
  thread_.join();
  std::vector<std::shared_ptr<WorkerGroup>> groups = Snapshot();
  {
    absl::MutexLock lock(&mutex_);
    groups.insert(groups.end(), retired_.begin(), retired_.end());
  }
  for (const auto& group : groups) group->Close();
  const absl::Time until = absl::Now() + kCloseTimeout;
  for (const auto& group : groups) {
    while (!group->Closed() && absl::Now() < until) absl::SleepFor(absl::Milliseconds(1));
  }
}

void GroupSet::SetAddresses(const std::vector<std::string>& addresses) {
  std::vector<std::shared_ptr<WorkerGroup>> kept;
  std::vector<std::shared_ptr<WorkerGroup>> gone;
  for (auto& group : Snapshot()) {
    const bool named =
        std::find(addresses.begin(), addresses.end(), group->address()) != addresses.end();
    (named ? kept : gone).push_back(std::move(group));
  }
  for (const auto& group : gone) group->Retire();
  for (const std::string& address : addresses) {
    if (std::any_of(kept.begin(), kept.end(),
                    [&](const auto& group) { return group->address() == address; })) {
      continue;
    }
    auto group = WorkerGroup::Create({.address = address,
                                      .health = options_.health,
                                      .check = [this](const auto& info) { return Check(info); }});
    if (group.ok()) {
      kept.push_back(*std::move(group));
    } else {
      Log(LogLevel::kError, "worker group",
          {{"address", address}, {"reason", Message(group.status())}});
    }
  }
  absl::MutexLock lock(&mutex_);
  groups_ = std::move(kept);
  retired_.insert(retired_.end(), gone.begin(), gone.end());
}

absl::Status GroupSet::Check(const v1::GetWorkerInfoResponse& info) {
  const auto tokenizer = options_.tokenizer->identity();
  if (tokenizer == nullptr) return Unavailable("the tokenizer has not answered yet");
  // A worker that was not told its fingerprint takes the one of its first request.
  if (!info.tokenizer_fingerprint().empty() &&
      info.tokenizer_fingerprint() != tokenizer->fingerprint) {
    return FailedPrecondition(
        "the worker's tokenizer has fingerprint {}, the tokenizer service has {}",
        info.tokenizer_fingerprint(), tokenizer->fingerprint);
  }
  absl::MutexLock lock(&mutex_);
  const std::string& want =
      !options_.model.empty() || !model_info_.has_value() ? options_.model : model_info_->model();
  if (!want.empty() && info.model() != want) {
    return FailedPrecondition("the worker serves model \"{}\", want \"{}\"", info.model(), want);
  }
  if (!model_info_.has_value()) model_info_ = info;
  return absl::OkStatus();
}

std::shared_ptr<WorkerGroup> GroupSet::Pick(
    std::span<const std::shared_ptr<WorkerGroup>> excluded) {
  std::vector<std::shared_ptr<WorkerGroup>> ready = Snapshot();
  std::erase_if(ready, [&](const auto& group) {
    return std::find(excluded.begin(), excluded.end(), group) != excluded.end() || !group->ready();
  });
  std::vector<GroupLoad> loads;
  loads.reserve(ready.size());
  for (const auto& group : ready) loads.push_back(group->load());
  size_t turn;
  {
    absl::MutexLock lock(&mutex_);
    turn = turn_++;
  }
  const auto best = LeastOutstanding(loads, turn);
  return best.has_value() ? ready[*best] : nullptr;
}

void GroupSet::WhenReady(absl::Time until, std::function<void()> then) {
  absl::MutexLock lock(&mutex_);
  waiters_.push_back({until, std::move(then)});
}

absl::Status GroupSet::Serving() const {
  if (absl::Status tokenizer = options_.tokenizer->Reachable(); !tokenizer.ok()) return tokenizer;
  std::string why;
  for (const auto& group : Snapshot()) {
    if (group->ready()) return absl::OkStatus();
    why += fmt::format("; {}", group->Describe());
  }
  return Unavailable("no worker group is ready{}", why.empty() ? "; none is known" : why);
}

int GroupSet::ready_groups() const {
  const auto groups = Snapshot();
  return static_cast<int>(std::count_if(groups.begin(), groups.end(),
                                        [](const auto& group) { return group->ready(); }));
}

std::optional<v1::GetWorkerInfoResponse> GroupSet::model_info() const {
  for (const auto& group : Snapshot()) {
    if (group->ready()) return group->info();
  }
  absl::MutexLock lock(&mutex_);
  return model_info_;
}

std::vector<std::shared_ptr<WorkerGroup>> GroupSet::Snapshot() const {
  absl::MutexLock lock(&mutex_);
  return groups_;
}

void GroupSet::Run() {
  do {
    Tick(absl::Now());
  } while (!stop_.WaitForNotificationWithTimeout(options_.tick));
}

void GroupSet::Tick(absl::Time now) {
  options_.tokenizer->Tick(now);
  for (const auto& group : Snapshot()) group->Tick(now);
  TickRetired(now);
  const int ready = ready_groups();
  if (options_.on_tick) options_.on_tick(Serving(), ready);
  CallWaiters(now, ready > 0);
}

void GroupSet::TickRetired(absl::Time now) {
  std::vector<std::shared_ptr<WorkerGroup>> retired;
  {
    absl::MutexLock lock(&mutex_);
    retired = retired_;
  }
  for (const auto& group : retired) {
    group->Tick(now);
    if (!group->Closed()) continue;
    absl::MutexLock lock(&mutex_);
    std::erase(retired_, group);
  }
}

void GroupSet::CallWaiters(absl::Time now, bool ready) {
  std::vector<Waiter> due;
  {
    absl::MutexLock lock(&mutex_);
    std::erase_if(waiters_, [&](Waiter& waiter) {
      if (!ready && now < waiter.until) return false;
      due.push_back(std::move(waiter));
      return true;
    });
  }
  for (const Waiter& waiter : due) waiter.then();
}

}  // namespace hanlin
