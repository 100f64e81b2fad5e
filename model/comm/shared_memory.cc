// See shared_memory.h. Small sums are one-shot: every rank adds up all slots itself, one barrier.
// Large ones are two-shot: each rank adds up its part of the elements and everyone copies the
// parts, two barriers but 1/size of the reading. Both add in rank order, so the choice changes no
// bit. What is reduced and scattered, or gathered, takes one barrier.
#include "model/comm/shared_memory.h"

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/status/status.h"
#include "model/comm/segment.h"

namespace hanlin {
namespace {

// Below this, a second barrier costs more than it saves.
constexpr size_t kOneShotFloats = 8192;
constexpr uint64_t kMaxMessageBytes = uint64_t{64} << 20;

class SharedMemoryCommunicator : public Communicator {
 public:
  SharedMemoryCommunicator(std::unique_ptr<Rendezvous> rendezvous, std::unique_ptr<Segment> segment,
                           absl::Duration timeout)
      : rendezvous_(std::move(rendezvous)), segment_(std::move(segment)), timeout_(timeout) {}

  int rank() const override { return rendezvous_->rank(); }
  int size() const override { return rendezvous_->size(); }

  absl::Status AllReduceSum(std::span<float> data) override {
    while (!data.empty()) {
      const std::span<float> chunk = data.first(std::min(data.size(), kSlotFloats));
      RETURN_IF_ERROR(chunk.size() <= kOneShotFloats ? ReduceOneShot(chunk) : ReduceTwoShot(chunk));
      data = data.subspan(chunk.size());
    }
    return absl::OkStatus();
  }

  absl::Status ReduceScatterSum(std::span<float> data, std::span<const int64_t> cuts) override {
    return ByChunks(data.size(), [&](size_t begin, size_t count, int parity) {
      std::memcpy(segment_->slot(rank(), parity), data.data() + begin, count * sizeof(float));
      RETURN_IF_ERROR(Meet(timeout_));
      const auto [from, to] = PartOf(rank(), cuts, begin, count);
      if (from < to) Sum(parity, from - begin, to - from, data.data() + from);
      return absl::OkStatus();
    });
  }

  absl::Status AllGather(std::span<float> data, std::span<const int64_t> cuts) override {
    return ByChunks(data.size(), [&](size_t begin, size_t count, int parity) {
      // A rank's part of the chunk: where it is in data, and in the rank's slot.
      const auto copy = [&](int source, bool from_slot) {
        const auto [from, to] = PartOf(source, cuts, begin, count);
        if (from >= to) return;
        float* const here = data.data() + from;
        float* const slot = segment_->slot(source, parity) + (from - begin);
        std::memcpy(from_slot ? here : slot, from_slot ? slot : here, (to - from) * sizeof(float));
      };
      copy(rank(), /*from_slot=*/false);
      RETURN_IF_ERROR(Meet(timeout_));
      for (int source = 0; source < size(); ++source) {
        if (source != rank()) copy(source, /*from_slot=*/true);
      }
      return absl::OkStatus();
    });
  }

  absl::Status GatherColumns(const float* shard, int64_t rows, int64_t columns,
                             float* out) override {
    const int64_t total = rows * columns;
    for (int64_t begin = 0; begin < total; begin += kSlotFloats) {
      const int64_t count = std::min<int64_t>(kSlotFloats, total - begin);
      const int parity = NextSlot();
      std::memcpy(segment_->slot(rank(), parity), shard + begin, count * sizeof(float));
      RETURN_IF_ERROR(Meet(timeout_));
      if (rank() != 0) continue;
      for (int source = 0; source < size(); ++source) {
        Scatter(segment_->slot(source, parity), begin, count, columns, source, out);
      }
    }
    return absl::OkStatus();
  }

  // Each piece is {uint64 bytes that are left, this piece included; the piece} in rank 0's slot.
  absl::Status Broadcast(std::vector<std::byte>* message, absl::Duration timeout) override {
    constexpr size_t kPieceBytes = kSlotFloats * sizeof(float) - sizeof(uint64_t);
    if (rank() != 0) message->clear();
    uint64_t left = message->size();
    bool first = true;
    do {
      auto* slot = reinterpret_cast<std::byte*>(segment_->slot(0, NextSlot()));
      if (rank() == 0) {
        std::memcpy(slot, &left, sizeof(left));
        std::copy_n(message->end() - left, std::min<size_t>(left, kPieceBytes),
                    slot + sizeof(left));
      }
      RETURN_IF_ERROR(Meet(first && rank() != 0 ? timeout : timeout_));
      first = false;
      if (rank() != 0) {
        std::memcpy(&left, slot, sizeof(left));
        if (left > kMaxMessageBytes) {
          Abort(fmt::format("rank 0 sent a message of {} bytes", left));
          return Check();
        }
        const std::byte* piece = slot + sizeof(left);
        message->insert(message->end(), piece, piece + std::min<size_t>(left, kPieceBytes));
      }
      left -= std::min<size_t>(left, kPieceBytes);
    } while (left > 0);
    return absl::OkStatus();
  }

  absl::Status Barrier() override { return Meet(timeout_); }
  absl::Status WaitForAll(absl::Duration timeout) override { return Meet(timeout); }

  void Abort(std::string_view reason) override {
    segment_->Abort(fmt::format("rank {} of {}: {}", rank(), size(), reason));
  }

  absl::Status Check() override {
    RETURN_IF_ERROR(segment_->Failure());
    for (const Rendezvous::Peer& peer : rendezvous_->peers()) {
      pollfd entry = {peer.socket.get(), POLLIN, 0};
      if (poll(&entry, 1, 0) > 0) {
        segment_->Abort(fmt::format("rank {} of {} is gone", peer.rank, size()));
        return segment_->Failure();
      }
    }
    return absl::OkStatus();
  }

 private:
  int NextSlot() { return static_cast<int>(operations_++ & 1); }

  absl::Status Meet(absl::Duration timeout) {
    return segment_->Barrier(rank(), ++barriers_, timeout, [this] { return Check(); });
  }

  // Calls work(begin, count, parity of the slots) for pieces of a slot's size.
  template <typename Work>
  absl::Status ByChunks(size_t total, Work&& work) {
    for (size_t begin = 0; begin < total; begin += kSlotFloats) {
      RETURN_IF_ERROR(work(begin, std::min(kSlotFloats, total - begin), NextSlot()));
    }
    return absl::OkStatus();
  }

  // What elements [begin, begin + count) hold of a rank's part; empty when the first is not below
  // the second.
  static std::pair<size_t, size_t> PartOf(int rank, std::span<const int64_t> cuts, size_t begin,
                                          size_t count) {
    return {std::max(begin, static_cast<size_t>(cuts[rank])),
            std::min(begin + count, static_cast<size_t>(cuts[rank + 1]))};
  }

  // out[i] = the sum over the ranks of element offset + i.
  void Sum(int parity, size_t offset, size_t count, float* out) const {
    std::memcpy(out, segment_->slot(0, parity) + offset, count * sizeof(float));
    for (int source = 1; source < size(); ++source) {
      const float* in = segment_->slot(source, parity) + offset;
      for (size_t i = 0; i < count; ++i) out[i] += in[i];
    }
  }

  absl::Status ReduceOneShot(std::span<float> data) {
    const int parity = NextSlot();
    std::memcpy(segment_->slot(rank(), parity), data.data(), data.size_bytes());
    RETURN_IF_ERROR(Meet(timeout_));
    Sum(parity, 0, data.size(), data.data());
    return absl::OkStatus();
  }

  absl::Status ReduceTwoShot(std::span<float> data) {
    const int parity = NextSlot();
    const auto begin_of = [&](int part) { return data.size() * part / size(); };
    const size_t begin = begin_of(rank());
    const size_t count = begin_of(rank() + 1) - begin;
    float* own = segment_->slot(rank(), parity);
    std::memcpy(own, data.data(), data.size_bytes());
    RETURN_IF_ERROR(Meet(timeout_));
    Sum(parity, begin, count, data.data() + begin);
    // Nobody else reads our part of our slot, so the sum may take its place.
    std::memcpy(own + begin, data.data() + begin, count * sizeof(float));
    RETURN_IF_ERROR(Meet(timeout_));
    for (int source = 0; source < size(); ++source) {
      if (source == rank()) continue;
      const size_t from = begin_of(source);
      std::memcpy(data.data() + from, segment_->slot(source, parity) + from,
                  (begin_of(source + 1) - from) * sizeof(float));
    }
    return absl::OkStatus();
  }

  // Elements [begin, begin + count) of the flat shard [rows, columns] of `source`, to their places
  // in `out`.
  void Scatter(const float* in, int64_t begin, int64_t count, int64_t columns, int source,
               float* out) const {
    while (count > 0) {
      const int64_t row = begin / columns;
      const int64_t column = begin % columns;
      const int64_t run = std::min(count, columns - column);
      std::memcpy(out + (row * size() + source) * columns + column, in, run * sizeof(float));
      in += run;
      begin += run;
      count -= run;
    }
  }

  const std::unique_ptr<Rendezvous> rendezvous_;
  const std::unique_ptr<Segment> segment_;
  const absl::Duration timeout_;
  uint64_t operations_ = 0;
  uint32_t barriers_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeSharedMemoryCommunicator(
    std::unique_ptr<Rendezvous> rendezvous, absl::Duration timeout) {
  const int size = rendezvous->size();
  std::string name;
  std::unique_ptr<Segment> segment;
  if (rendezvous->rank() == 0) {
    ASSIGN_OR_RETURN(segment, Segment::Make(size));
    name = segment->name();
  }
  RETURN_IF_ERROR(rendezvous->Broadcast(&name));
  if (rendezvous->rank() != 0) {
    ASSIGN_OR_RETURN(segment, Segment::Open(name, size));
  }
  RETURN_IF_ERROR(rendezvous->Barrier());  // all have mapped it
  segment->Unlink();
  return std::make_unique<SharedMemoryCommunicator>(std::move(rendezvous), std::move(segment),
                                                    timeout);
}

}  // namespace hanlin
