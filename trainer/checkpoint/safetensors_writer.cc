// See safetensors_writer.h.
#include "trainer/checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/status/status.h"
#include "kernels/base/types.h"

namespace hanlin {
namespace {

int64_t Elements(const SafetensorsWriter::Tensor& tensor) {
  int64_t count = 1;
  for (const int64_t size : tensor.shape) count *= size;
  return count;
}

absl::Status ErrnoStatus(std::string_view action, const std::string& path, int error) {
  const auto message = fmt::format("cannot {} {}: {}", action, path, std::strerror(error));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::UnknownError(message);
}

std::string Header(const std::vector<SafetensorsWriter::Tensor>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  int64_t offset = 0;
  for (const auto& tensor : tensors) {
    const int64_t end = offset + Elements(tensor) * (tensor.bfloat16 ? 2 : 4);
    header[tensor.name] = {{"dtype", tensor.bfloat16 ? "BF16" : "F32"},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors begin aligned
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, const std::vector<Tensor>& tensors) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus("create", path, errno);
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(path, fd, tensors));
  const std::string header = Header(tensors);
  const uint64_t size = header.size();
  RETURN_IF_ERROR(writer->Write(&size, sizeof(size)));
  RETURN_IF_ERROR(writer->Write(header.data(), header.size()));
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ >= 0) close(fd_);
}

absl::Status SafetensorsWriter::Write(const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = write(fd_, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus("write", path_, errno);
    bytes += written;
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Append(std::span<const float> values) {
  if (next_ >= tensors_.size() ||
      Elements(tensors_[next_]) != static_cast<int64_t>(values.size())) {
    return Internal("{}: {} elements do not fit tensor number {}", path_, values.size(), next_);
  }
  if (!tensors_[next_++].bfloat16) return Write(values.data(), values.size_bytes());
  std::vector<BFloat16> rounded(values.size());
  for (size_t i = 0; i < values.size(); ++i) rounded[i] = ToBFloat16(values[i]);
  return Write(rounded.data(), rounded.size() * sizeof(BFloat16));
}

absl::Status SafetensorsWriter::Finish() {
  if (next_ != tensors_.size()) {
    return Internal("{}: {} of {} tensors written", path_, next_, tensors_.size());
  }
  if (fsync(fd_) != 0) return ErrnoStatus("sync", path_, errno);
  const int fd = std::exchange(fd_, -1);
  if (close(fd) != 0) return ErrnoStatus("close", path_, errno);
  return absl::OkStatus();
}

}  // namespace hanlin
