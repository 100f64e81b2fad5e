// See zip.h. Field offsets are those of PKWARE's APPNOTE.TXT, sections 4.3.7 to 4.3.16.
#include "model/checkpoint/zip.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "common/status/status.h"
#include "model/checkpoint/stored_tensor.h"

namespace hanlin {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEndRecord = 0x06054b50;
constexpr uint32_t kZip64EndRecord = 0x06064b50, kZip64Locator = 0x07064b50;
constexpr size_t kLocalHeaderBytes = 30, kCentralHeaderBytes = 46, kEndRecordBytes = 22;
constexpr size_t kZip64EndRecordBytes = 56, kZip64LocatorBytes = 20;
constexpr uint32_t kInZip64 = 0xffffffff;  // "see the zip64 extra field"
constexpr size_t kMaxEntries = 1 << 20;

// Little-endian fields; the caller has checked that they are inside.
uint64_t Field(std::string_view bytes, size_t offset, int size) {
  uint64_t value = 0;
  for (int i = size - 1; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[offset + i]);
  return value;
}

// Whether [offset, offset + size) is inside `bytes`.
bool Inside(std::string_view bytes, uint64_t offset, uint64_t size) {
  return offset <= bytes.size() && size <= bytes.size() - offset;
}

struct Directory {
  uint64_t entries, bytes, offset;
};

absl::StatusOr<Directory> FindDirectory(std::string_view archive) {
  if (archive.size() < kEndRecordBytes)
    return DataLoss("zip archive of {} bytes has no end record", archive.size());
  // The end record is followed only by a comment of at most 65535 bytes.
  const size_t last = archive.size() - kEndRecordBytes;
  const size_t first = last - std::min<size_t>(last, 65535);
  size_t end = last;
  while (Field(archive, end, 4) != kEndRecord) {
    if (end == first) return DataLoss("zip archive has no end record, it may be cut short");
    --end;
  }
  Directory directory = {Field(archive, end + 10, 2), Field(archive, end + 12, 4),
                         Field(archive, end + 16, 4)};
  const bool zip64 =
      directory.entries == 0xffff || directory.bytes == kInZip64 || directory.offset == kInZip64;
  if (zip64 && end >= kZip64LocatorBytes &&
      Field(archive, end - kZip64LocatorBytes, 4) == kZip64Locator) {
    const uint64_t record = Field(archive, end - kZip64LocatorBytes + 8, 8);
    if (!Inside(archive, record, kZip64EndRecordBytes) ||
        Field(archive, record, 4) != kZip64EndRecord) {
      return DataLoss("zip64 end record is not at {}, where the locator says", record);
    }
    directory = {Field(archive, record + 32, 8), Field(archive, record + 40, 8),
                 Field(archive, record + 48, 8)};
  }
  if (!Inside(archive, directory.offset, directory.bytes)) {
    return DataLoss("zip directory of {} bytes at {} is outside the archive of {}", directory.bytes,
                    directory.offset, archive.size());
  }
  if (directory.entries > kMaxEntries ||
      directory.entries * kCentralHeaderBytes > directory.bytes) {
    return DataLoss("zip archive claims {} entries in a directory of {} bytes", directory.entries,
                    directory.bytes);
  }
  return directory;
}

struct Entry {
  uint64_t compressed, size, offset;
};

// The values that did not fit 32 bits stand in this order in the extra field with id 1.
absl::Status ReadZip64Extra(std::string_view extra, Entry* entry) {
  uint64_t* const wide[] = {&entry->size, &entry->compressed, &entry->offset};
  for (size_t at = 0; at + 4 <= extra.size();) {
    const uint64_t id = Field(extra, at, 2), size = Field(extra, at + 2, 2);
    at += 4;
    if (!Inside(extra, at, size)) break;
    if (id == 1) {
      std::string_view values = extra.substr(at, size);
      for (uint64_t* value : wide) {
        if (*value != kInZip64) continue;
        if (values.size() < 8) return DataLoss("its zip64 field is too short");
        *value = Field(values, 0, 8);
        values.remove_prefix(8);
      }
      return absl::OkStatus();
    }
    at += size;
  }
  return absl::OkStatus();
}

// Where the bytes of an entry are: behind its local header, whose extra field has a length of its
// own.
absl::StatusOr<std::string_view> Contents(std::string_view archive, std::string_view header,
                                          const Entry& entry) {
  const uint64_t flags = Field(header, 8, 2), method = Field(header, 10, 2);
  if (flags & 1) return DataLoss("it is encrypted");
  if (method != 0 || entry.compressed != entry.size) {
    return DataLoss("it is compressed (method {}), want a stored entry as torch.save writes",
                    method);
  }
  if (!Inside(archive, entry.offset, kLocalHeaderBytes) ||
      Field(archive, entry.offset, 4) != kLocalHeader) {
    return DataLoss("its local header is not at {}", entry.offset);
  }
  const uint64_t begin = entry.offset + kLocalHeaderBytes + Field(archive, entry.offset + 26, 2) +
                         Field(archive, entry.offset + 28, 2);
  if (!Inside(archive, begin, entry.size)) {
    return DataLoss("its {} bytes at {} are outside the archive of {} bytes", entry.size, begin,
                    archive.size());
  }
  return archive.substr(begin, entry.size);
}

}  // namespace

absl::StatusOr<ZipEntries> ReadZip(std::string_view archive) {
  ASSIGN_OR_RETURN(const Directory directory, FindDirectory(archive));
  std::string_view rest = archive.substr(directory.offset, directory.bytes);
  ZipEntries entries;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (rest.size() < kCentralHeaderBytes || Field(rest, 0, 4) != kCentralHeader) {
      return DataLoss("zip directory is damaged at entry {} of {}", i, directory.entries);
    }
    const std::string_view header = rest.substr(0, kCentralHeaderBytes);
    const uint64_t name_bytes = Field(rest, 28, 2), extra_bytes = Field(rest, 30, 2);
    const uint64_t total = kCentralHeaderBytes + name_bytes + extra_bytes + Field(rest, 32, 2);
    if (total > rest.size())
      return DataLoss("zip directory is cut short at entry {} of {}", i, directory.entries);
    const std::string name(rest.substr(kCentralHeaderBytes, name_bytes));
    Entry entry = {Field(rest, 20, 4), Field(rest, 24, 4), Field(rest, 42, 4)};
    absl::Status status =
        ReadZip64Extra(rest.substr(kCentralHeaderBytes + name_bytes, extra_bytes), &entry);
    if (status.ok()) {
      auto contents = Contents(archive, header, entry);
      status = contents.status();
      if (contents.ok() && !entries.emplace(name, *contents).second)
        status = DataLoss("it occurs twice");
    }
    if (!status.ok()) return Annotate(status, fmt::format("zip entry {}", Printable(name)));
    rest.remove_prefix(total);
  }
  return entries;
}

}  // namespace hanlin
