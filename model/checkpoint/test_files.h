// Builders of checkpoint files for the tests of this folder: pickles opcode by opcode, zip
// archives, torch files of both formats, safetensors. They write whatever they are told, so that
// tests can make files that lie.
#ifndef HANLIN_MODEL_CHECKPOINT_TEST_FILES_H_
#define HANLIN_MODEL_CHECKPOINT_TEST_FILES_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hanlin::testing {

inline std::string LittleEndian(uint64_t value, int bytes) {
  std::string result;
  for (int i = 0; i < bytes; ++i) result.push_back(static_cast<char>(i < 8 ? value >> (8 * i) : 0));
  return result;
}

template <typename T>
std::string RawBytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// Appends opcodes of protocol 2; chain the calls.
class PickleWriter {
 public:
  PickleWriter() : bytes_("\x80\x02") {}
  PickleWriter& Raw(std::string_view bytes) {
    bytes_ += bytes;
    return *this;
  }
  PickleWriter& String(std::string_view text) {
    return Raw("X").Raw(LittleEndian(text.size(), 4)).Raw(text);
  }
  PickleWriter& Int(int64_t value) {
    return Raw("\x8a\x08").Raw(LittleEndian(static_cast<uint64_t>(value), 8));
  }
  PickleWriter& Global(std::string_view module, std::string_view name) {
    return Raw("c").Raw(module).Raw("\n").Raw(name).Raw("\n");
  }
  PickleWriter& Tuple(const std::vector<int64_t>& values) {
    Raw("(");
    for (const int64_t value : values) Int(value);
    return Raw("t");
  }
  // torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())
  PickleWriter& Tensor(std::string_view storage_type, std::string_view key, int64_t elements,
                       int64_t offset, const std::vector<int64_t>& shape,
                       const std::vector<int64_t>& strides) {
    Global("torch._utils", "_rebuild_tensor_v2")
        .Raw("((")
        .String("storage")
        .Global("torch", storage_type);
    String(key).String("cpu").Int(elements).Raw("tQ").Int(offset).Tuple(shape).Tuple(strides).Raw(
        "\x89");
    return Global("collections", "OrderedDict").Raw(")RtR");
  }
  std::string Stop() const { return bytes_ + "."; }

 private:
  std::string bytes_;
};

struct ZipSpec {
  std::string name, contents;
  uint16_t method = 0;        // 0 stored
  uint64_t claimed_size = 0;  // 0: the true one
};

inline std::string Zip(const std::vector<ZipSpec>& entries) {
  std::string archive, directory;
  for (const ZipSpec& entry : entries) {
    const uint64_t size = entry.claimed_size != 0 ? entry.claimed_size : entry.contents.size();
    // version, flags, method, time, date, crc, sizes, name and extra length: common to both headers
    const std::string common = LittleEndian(20, 2) + LittleEndian(0, 2) +
                               LittleEndian(entry.method, 2) + LittleEndian(0, 8) +
                               LittleEndian(size, 4) + LittleEndian(size, 4) +
                               LittleEndian(entry.name.size(), 2) + LittleEndian(0, 2);
    directory += LittleEndian(0x02014b50, 4) + LittleEndian(20, 2) + common + LittleEndian(0, 10) +
                 LittleEndian(archive.size(), 4) + entry.name;
    archive += LittleEndian(0x04034b50, 4) + common + entry.name + entry.contents;
  }
  return archive + directory + LittleEndian(0x06054b50, 4) + LittleEndian(0, 4) +
         LittleEndian(entries.size(), 2) + LittleEndian(entries.size(), 2) +
         LittleEndian(directory.size(), 4) + LittleEndian(archive.size(), 4) + LittleEndian(0, 2);
}

using Storage = std::pair<std::string, std::string>;  // key, bytes

inline std::string TorchZip(const std::string& pickle, const std::vector<Storage>& storages) {
  std::vector<ZipSpec> entries = {{"archive/data.pkl", pickle}};
  for (const auto& [key, bytes] : storages) entries.push_back({"archive/data/" + key, bytes});
  entries.push_back({"archive/version", "3\n"});
  return Zip(entries);
}

// `element_bytes` of every storage.
inline std::string TorchLegacy(const std::string& pickle, const std::vector<Storage>& storages,
                               size_t element_bytes = 4) {
  const std::string magic("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
  std::string file = PickleWriter().Raw(magic).Stop() + PickleWriter().Int(1001).Stop() +
                     PickleWriter().Raw("}").String("little_endian").Raw("\x88s").Stop() + pickle;
  PickleWriter keys;
  keys.Raw("](");
  for (const auto& storage : storages) keys.String(storage.first);
  file += keys.Raw("e").Stop();
  for (const auto& storage : storages) {
    file += LittleEndian(storage.second.size() / element_bytes, 8) + storage.second;
  }
  return file;
}

inline std::string Safetensors(std::string_view header, std::string_view data) {
  return LittleEndian(header.size(), 8) + std::string(header) + std::string(data);
}

}  // namespace hanlin::testing

#endif  // HANLIN_MODEL_CHECKPOINT_TEST_FILES_H_
