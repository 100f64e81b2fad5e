// See tensorboard.h.
#include "trainer/log/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "common/status/status.h"

namespace hanlin {
namespace {

static_assert(std::endian::native == std::endian::little);

std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table = {};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78u : 0);
    table[i] = value;
  }
  return table;
}

// The wire format of protocol buffers, as much as an event needs.
template <typename T>
void AppendRaw(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}
void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}
void AppendBytes(int field, std::string_view bytes, std::string* out) {
  AppendVarint(static_cast<uint64_t>(field) << 3 | 2, out);
  AppendVarint(bytes.size(), out);
  out->append(bytes);
}
void AppendDouble(int field, double value, std::string* out) {
  AppendVarint(static_cast<uint64_t>(field) << 3 | 1, out);
  AppendRaw(value, out);
}
void AppendFloat(int field, float value, std::string* out) {
  AppendVarint(static_cast<uint64_t>(field) << 3 | 5, out);
  AppendRaw(value, out);
}

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = MakeTable();
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return ~crc;
}

uint32_t MaskedCrc32c(std::string_view bytes) { return std::rotr(Crc32c(bytes), 15) + 0xa282ead8u; }

absl::StatusOr<std::unique_ptr<EventWriter>> EventWriter::Create(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  char host[256] = "host";
  gethostname(host, sizeof(host) - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::string path =
      fmt::format("{}/events.out.tfevents.{}.{}.{}.hanlin", directory,
                  std::chrono::duration_cast<std::chrono::seconds>(now).count(), host, getpid());
  FILE* const file = std::fopen(path.c_str(), "ab");
  if (file == nullptr) return NotFound("cannot create {}: {}", path, std::strerror(errno));
  std::unique_ptr<EventWriter> writer(new EventWriter(path, file));
  std::string event;
  AppendDouble(1, std::chrono::duration<double>(now).count(), &event);
  AppendBytes(3, "brain.Event:2", &event);
  RETURN_IF_ERROR(writer->WriteRecord(event));
  return writer;
}

EventWriter::~EventWriter() { std::fclose(file_); }

absl::Status EventWriter::WriteRecord(std::string_view bytes) {
  std::string record;
  AppendRaw(uint64_t{bytes.size()}, &record);
  AppendRaw(MaskedCrc32c(record), &record);
  record.append(bytes);
  AppendRaw(MaskedCrc32c(bytes), &record);
  if (std::fwrite(record.data(), 1, record.size(), file_) != record.size() ||
      std::fflush(file_) != 0) {
    return ResourceExhausted("cannot write {}: {}", path_, std::strerror(errno));
  }
  return absl::OkStatus();
}

absl::Status EventWriter::Write(double wall_time, int64_t step, std::span<const Scalar> scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    std::string entry;
    AppendBytes(1, tag, &entry);
    AppendFloat(2, static_cast<float>(value), &entry);
    AppendBytes(1, entry, &summary);
  }
  return WriteSummary(wall_time, step, summary);
}

absl::Status EventWriter::WriteText(double wall_time, int64_t step, std::string_view tag,
                                    std::string_view text) {
  std::string size, shape, tensor, name, plugin, value, summary;
  AppendVarint(1 << 3, &size);
  AppendVarint(1, &size);
  AppendBytes(2, size, &shape);
  AppendVarint(1 << 3, &tensor);
  AppendVarint(7, &tensor);  // DT_STRING
  AppendBytes(2, shape, &tensor);
  AppendBytes(8, text, &tensor);
  AppendBytes(1, "text", &name);
  AppendBytes(1, name, &plugin);
  AppendBytes(1, tag, &value);
  AppendBytes(8, tensor, &value);
  AppendBytes(9, plugin, &value);
  AppendBytes(1, value, &summary);
  return WriteSummary(wall_time, step, summary);
}

absl::Status EventWriter::WriteSummary(double wall_time, int64_t step, std::string_view summary) {
  std::string event;
  AppendDouble(1, wall_time, &event);
  AppendVarint(2 << 3, &event);
  AppendVarint(static_cast<uint64_t>(step), &event);
  AppendBytes(5, summary, &event);
  return WriteRecord(event);
}

}  // namespace hanlin
