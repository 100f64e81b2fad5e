// TensorBoard event files, written without TensorBoard. A file is a sequence of records (TFRecord):
//
//   u64 length, u32 masked crc32c(length), bytes, u32 masked crc32c(bytes)      little-endian
//   masked(c) = rotate right(c, 15) + 0xa282ead8
//
// each an Event message: 1 wall_time (double), 2 step (varint), 3 file_version (first record only),
// 5 summary {1 value {1 tag, 2 simple_value (float)}}. A text's value is
// {1 tag, 8 tensor {1 dtype 7, 2 shape {2 dimension {1 size 1}}, 8 string},
// 9 metadata {1 plugin {1 "text"}}}. Not thread-safe.
#ifndef HANLIN_TRAINER_LOG_TENSORBOARD_H_
#define HANLIN_TRAINER_LOG_TENSORBOARD_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanlin {

class EventWriter {
 public:
  using Scalar = std::pair<std::string, double>;

  // Makes DIRECTORY/events.out.tfevents.SECONDS.HOST.PID.hanlin.
  static absl::StatusOr<std::unique_ptr<EventWriter>> Create(const std::string& directory);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  // One event with all scalars, flushed.
  absl::Status Write(double wall_time, int64_t step, std::span<const Scalar> scalars);

  // One event with a text, flushed.
  absl::Status WriteText(double wall_time, int64_t step, std::string_view tag,
                         std::string_view text);

  const std::string& path() const { return path_; }

 private:
  EventWriter(std::string path, FILE* file) : path_(std::move(path)), file_(file) {}
  absl::Status WriteSummary(double wall_time, int64_t step, std::string_view summary);
  absl::Status WriteRecord(std::string_view bytes);

  const std::string path_;
  FILE* const file_;
};

// Castagnoli's CRC, as the records use it before masking.
uint32_t Crc32c(std::string_view bytes);
uint32_t MaskedCrc32c(std::string_view bytes);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_LOG_TENSORBOARD_H_
