// The pieces of one stream between the worker and a client that may be slow. While the client keeps
// up, every event is a message of its own; once kMaxPieces wait, further events are appended to the
// last of them, so the memory of a stream is bounded by its text. Sent messages are reused.
//
// Not thread-safe: the stream's lock guards it.
#ifndef HANLIN_GATEWAY_CHUNK_QUEUE_H_
#define HANLIN_GATEWAY_CHUNK_QUEUE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "hanlin/v1/text_generation.pb.h"

namespace hanlin {

class ChunkQueue {
 public:
  static constexpr size_t kMaxPieces = 64;

  // The message that the next event is to be appended to: a new one with the next sequence number,
  // or the last one when the client lags.
  v1::StreamGenerateResponse* Tail() {
    if (pieces_.size() < kMaxPieces) {
      pieces_.push_back(spare_ != nullptr ? std::move(spare_)
                                          : std::make_unique<v1::StreamGenerateResponse>());
      pieces_.back()->set_sequence_number(next_sequence_number_++);
    }
    return pieces_.back().get();
  }

  bool empty() const { return pieces_.empty(); }
  size_t size() const { return pieces_.size(); }
  const v1::StreamGenerateResponse& Front() const { return *pieces_.front(); }
  // Once it has been serialised.
  void PopFront() {
    spare_ = std::move(pieces_.front());
    spare_->Clear();
    pieces_.pop_front();
  }

 private:
  std::deque<std::unique_ptr<v1::StreamGenerateResponse>> pieces_;
  std::unique_ptr<v1::StreamGenerateResponse> spare_;
  int64_t next_sequence_number_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_CHUNK_QUEUE_H_
