// Writes a safetensors file (layout in model/checkpoint/safetensors.h) tensor by tensor, without
// holding more than one in memory. The file counts only after Finish, which syncs it. Not
// thread-safe.
#ifndef HANLIN_TRAINER_CHECKPOINT_SAFETENSORS_WRITER_H_
#define HANLIN_TRAINER_CHECKPOINT_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanlin {

class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
    bool bfloat16 = false;  // else float32
  };

  // Creates `path` and writes the header. `tensors` in the order of the Append calls.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, const std::vector<Tensor>& tensors);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next tensor's elements, rounded to its type. RESOURCE_EXHAUSTED on a full disk.
  absl::Status Append(std::span<const float> values);
  absl::Status Finish();

 private:
  SafetensorsWriter(std::string path, int fd, std::vector<Tensor> tensors)
      : path_(std::move(path)), fd_(fd), tensors_(std::move(tensors)) {}
  absl::Status Write(const void* data, size_t size);

  const std::string path_;
  int fd_;
  const std::vector<Tensor> tensors_;
  size_t next_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_TRAINER_CHECKPOINT_SAFETENSORS_WRITER_H_
