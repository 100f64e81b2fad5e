// See torch_file.h.
#include "model/checkpoint/torch_file.h"

#include <cstring>
#include <map>

#include "common/io/file.h"
#include "common/status/status.h"
#include "model/checkpoint/pickle.h"
#include "model/checkpoint/zip.h"

namespace hanlin {
namespace {

// 0x1950a86a20f9469cfc6c, as the pickle holds it.
constexpr std::string_view kLegacyMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
constexpr int64_t kLegacyProtocol = 1001;
// Containers nest {'state_dict': {'module': …}} at most; a cycle ends here too.
constexpr int kMaxNesting = 4;

// The bytes of each storage.
using Storages = std::map<std::string_view, std::string_view>;

absl::Status CheckStorage(std::string_view key, const PickledStorage& storage,
                          std::string_view bytes) {
  if (static_cast<uint64_t>(storage.elements) >
      bytes.size() / static_cast<uint64_t>(ElementBytes(storage.dtype))) {
    return DataLoss("storage {} has {} bytes, want {} elements of {}", Printable(key), bytes.size(),
                    storage.elements, ToString(storage.dtype));
  }
  return absl::OkStatus();
}

bool HoldsTensors(const PickleValue& dict) {
  for (size_t i = 1; i < dict.items.size(); i += 2) {
    if (dict.items[i]->kind == PickleValue::Kind::kTensor) return true;
  }
  return false;
}

// The dict of tensors inside the containers of checkpoints.
absl::StatusOr<const PickleValue*> FindStateDict(const PickleValue* value) {
  for (int depth = 0; depth < kMaxNesting; ++depth) {
    if (value->kind != PickleValue::Kind::kDict) break;
    const PickleValue* inner = value->Find("module");
    if (inner == nullptr || inner->kind != PickleValue::Kind::kDict)
      inner = value->Find("state_dict");
    if (inner == nullptr || inner->kind != PickleValue::Kind::kDict) {
      if (HoldsTensors(*value)) return value;
      break;
    }
    value = inner;
  }
  std::string seen(ToString(value->kind));
  for (size_t i = 0; i < value->items.size() && i < 10 && value->kind == PickleValue::Kind::kDict;
       i += 2) {
    seen += (i == 0 ? " with " : ", ") + Printable(value->items[i]->text);
  }
  return FailedPrecondition(
      "holds a {}, want a dict of tensors, by itself or under 'module' or 'state_dict'", seen);
}

absl::StatusOr<StoredTensors> Collect(const std::shared_ptr<const MappedFile>& file,
                                      const PickleDocument& document, const Storages& storages) {
  ASSIGN_OR_RETURN(const PickleValue* const dict, FindStateDict(document.root));
  StoredTensors tensors;
  for (size_t i = 0; i < dict->items.size(); i += 2) {
    const PickleValue& name = *dict->items[i];
    const PickleValue& value = *dict->items[i + 1];
    if (name.kind != PickleValue::Kind::kString || value.kind != PickleValue::Kind::kTensor)
      continue;
    const PickledTensor& tensor = *value.tensor;
    const auto bytes = storages.find(tensor.storage_key);
    if (bytes == storages.end()) {
      return DataLoss("tensor {} uses storage {}, which is not in the file", Printable(name.text),
                      Printable(tensor.storage_key));
    }
    const auto* data = reinterpret_cast<const uint8_t*>(bytes->second.data()) +
                       tensor.offset * ElementBytes(tensor.dtype);
    tensors.insert_or_assign(std::string(name.text),
                             StoredTensor{file, data, tensor.dtype, tensor.shape, tensor.strides});
  }
  return tensors;
}

absl::StatusOr<StoredTensors> ReadZipFormat(const std::shared_ptr<const MappedFile>& file) {
  ASSIGN_OR_RETURN(const ZipEntries entries, ReadZip(file->view()));
  constexpr std::string_view kPickle = "/data.pkl";
  std::string prefix;
  std::string_view pickle;
  for (const auto& [name, contents] : entries) {
    if (!name.ends_with(kPickle)) continue;
    if (pickle.data() != nullptr)
      return DataLoss("holds two data.pkl: {}{} and {}", prefix, kPickle, name);
    prefix = name.substr(0, name.size() - kPickle.size());
    pickle = contents;
  }
  if (pickle.data() == nullptr)
    return DataLoss("is a zip archive without data.pkl, so not written by torch.save");
  const auto order = entries.find(prefix + "/byteorder");
  if (order != entries.end() && order->second != "little") {
    return FailedPrecondition("its byte order is {}, want little", Printable(order->second));
  }
  ASSIGN_OR_RETURN(const PickleDocument document, ReadPickle(pickle));
  Storages storages;
  for (const auto& [key, storage] : document.storages) {
    const auto entry = entries.find(fmt::format("{}/data/{}", prefix, key));
    if (entry == entries.end()) return DataLoss("storage {} is not in the archive", Printable(key));
    RETURN_IF_ERROR(CheckStorage(key, storage, entry->second));
    storages[key] = entry->second;
  }
  return Collect(file, document, storages);
}

// The storages behind the list of keys: an int64 count and the elements of each.
absl::StatusOr<Storages> ReadLegacyStorages(const PickleDocument& document, const PickleValue& keys,
                                            std::string_view rest) {
  if (keys.kind != PickleValue::Kind::kList)
    return DataLoss("its list of storages is a {}", ToString(keys.kind));
  Storages storages;
  for (const PickleValue* key : keys.items) {
    const auto storage = document.storages.find(key->text);
    if (storage == document.storages.end() || storages.contains(key->text)) {
      return DataLoss("its list of storages names {}, which no tensor uses or which is named twice",
                      Printable(key->text));
    }
    int64_t count = 0;
    if (rest.size() < sizeof(count))
      return DataLoss("it ends before storage {}", Printable(key->text));
    std::memcpy(&count, rest.data(), sizeof(count));
    rest.remove_prefix(sizeof(count));
    if (count != storage->second.elements) {
      return DataLoss("storage {} has {} elements, want {}", Printable(key->text), count,
                      storage->second.elements);
    }
    RETURN_IF_ERROR(CheckStorage(key->text, storage->second, rest));
    const auto bytes = static_cast<size_t>(count * ElementBytes(storage->second.dtype));
    storages[storage->first] = rest.substr(0, bytes);
    rest.remove_prefix(bytes);
  }
  return storages;
}

absl::StatusOr<StoredTensors> ReadLegacyFormat(const std::shared_ptr<const MappedFile>& file) {
  std::string_view rest = file->view();
  const auto next = [&rest]() -> absl::StatusOr<PickleDocument> {
    auto document = ReadPickle(rest);
    if (document.ok()) rest.remove_prefix(document->bytes);
    return document;
  };
  ASSIGN_OR_RETURN(const PickleDocument magic, next());
  if (magic.root->text != kLegacyMagic)
    return DataLoss("begins with another magic number than torch.save writes");
  ASSIGN_OR_RETURN(const PickleDocument protocol, next());
  if (protocol.root->integer != kLegacyProtocol) {
    return FailedPrecondition("its protocol is {}, want {}", protocol.root->integer,
                              kLegacyProtocol);
  }
  ASSIGN_OR_RETURN(const PickleDocument system, next());
  const PickleValue* little = system.root->Find("little_endian");
  if (little == nullptr || little->integer != 1)
    return FailedPrecondition("it is not little-endian");
  ASSIGN_OR_RETURN(const PickleDocument document, next());
  ASSIGN_OR_RETURN(const PickleDocument keys, next());
  ASSIGN_OR_RETURN(const Storages storages, ReadLegacyStorages(document, *keys.root, rest));
  return Collect(file, document, storages);
}

absl::StatusOr<StoredTensors> ReadAny(const std::shared_ptr<const MappedFile>& file) {
  const std::string_view bytes = file->view();
  if (bytes.starts_with("PK\x03\x04")) return ReadZipFormat(file);
  if (bytes.starts_with("\x80\x02\x8a\x0a")) return ReadLegacyFormat(file);
  if (bytes.size() > 262 && bytes.substr(257, 5) == "ustar") {
    return FailedPrecondition(
        "is a tar file as torch wrote before 0.1.10; save it again with a newer torch");
  }
  return DataLoss(
      "is neither a zip archive nor a pickle written by torch.save ({} bytes, beginning with {})",
      bytes.size(), Printable(bytes.substr(0, 8)));
}

}  // namespace

absl::StatusOr<StoredTensors> ReadTorchFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  auto tensors = ReadAny(file);
  if (!tensors.ok()) return Annotate(tensors.status(), path);
  return tensors;
}

}  // namespace hanlin
