// See settings.h.
#include "tokenizer_svc/core/sentencepiece/settings.h"

#include <cstdint>
#include <cstring>
#include <functional>

#include "common/status/status.h"

namespace hanlin {
namespace {

// One field of a protobuf message: a number for varint and fixed types, bytes for length-delimited
// ones.
struct Field {
  uint32_t number;
  uint64_t value;
  std::string_view bytes;
};

bool ReadVarint(std::string_view* in, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (in->empty()) return false;
    const uint8_t byte = static_cast<uint8_t>(in->front());
    in->remove_prefix(1);
    *value |= uint64_t{byte & 0x7Fu} << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

bool ReadField(std::string_view* in, Field* field) {
  uint64_t key;
  if (!ReadVarint(in, &key)) return false;
  *field = {static_cast<uint32_t>(key >> 3), 0, {}};
  uint64_t length;
  switch (key & 7) {
    case 0:
      return ReadVarint(in, &field->value);
    case 1:
      length = 8;
      break;
    case 2:
      if (!ReadVarint(in, &length)) return false;
      break;
    case 5:
      length = 4;
      break;
    default:
      return false;
  }
  if (length > in->size()) return false;
  field->bytes = in->substr(0, length);
  in->remove_prefix(length);
  return true;
}

absl::Status ForEachField(std::string_view message, std::string_view what,
                          const std::function<absl::Status(const Field&)>& visit) {
  const size_t size = message.size();
  while (!message.empty()) {
    Field field;
    if (!ReadField(&message, &field)) {
      return DataLoss("sentencepiece model: {} is damaged before byte {} of {}", what,
                      size - message.size(), size);
    }
    RETURN_IF_ERROR(visit(field));
  }
  return absl::OkStatus();
}

// Every step and every value of the double array must stay inside, whatever text is walked through
// it.
absl::Status CheckCharsMap(std::string_view map) {
  if (map.empty()) return absl::OkStatus();
  uint32_t trie_bytes = 0;
  if (map.size() > sizeof(trie_bytes)) std::memcpy(&trie_bytes, map.data(), sizeof(trie_bytes));
  if (map.size() <= sizeof(trie_bytes) || trie_bytes == 0 || trie_bytes % 1024 != 0 ||
      trie_bytes >= map.size() - sizeof(trie_bytes) || map.back() != '\0') {
    return DataLoss("sentencepiece model: the character map has {} bytes and a trie of {}",
                    map.size(), trie_bytes);
  }
  const std::string_view trie = map.substr(sizeof(trie_bytes), trie_bytes);
  const size_t strings = map.size() - sizeof(trie_bytes) - trie_bytes;
  const uint32_t units = trie_bytes / 4;  // A multiple of 256, so the low byte of an index is free.
  for (uint32_t at = 0; at < units; ++at) {
    uint32_t unit;
    std::memcpy(&unit, trie.data() + at * 4, sizeof(unit));
    const bool is_value = (unit >> 31) != 0;
    const uint32_t offset = (unit >> 10) << ((unit & (1u << 9)) >> 6);
    if (is_value ? (unit & 0x7FFFFFFF) >= strings : (at ^ offset) >= units) {
      return DataLoss("sentencepiece model: unit {} of the character map leaves it", at);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadNormalizer(std::string_view message, SentencePieceSettings* settings) {
  return ForEachField(message, "the normalizer", [settings](const Field& field) -> absl::Status {
    if (field.number == 2) return CheckCharsMap(field.bytes);
    if (field.number == 3) settings->add_dummy_prefix = field.value != 0;
    if (field.number == 4) settings->remove_extra_whitespaces = field.value != 0;
    return absl::OkStatus();
  });
}

absl::Status ReadTrainer(std::string_view message, SentencePieceSettings* settings) {
  return ForEachField(message, "the trainer spec", [settings](const Field& field) -> absl::Status {
    if (field.number == 24) settings->treat_whitespace_as_suffix = field.value != 0;
    if (field.number == 44) settings->unk_surface = std::string(field.bytes);
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<SentencePieceSettings> ReadSentencePieceSettings(std::string_view bytes) {
  SentencePieceSettings settings;
  const auto visit = [&settings](const Field& field) -> absl::Status {
    if (field.number == 2) return ReadTrainer(field.bytes, &settings);
    if (field.number == 3) return ReadNormalizer(field.bytes, &settings);
    if (field.number != 5) return absl::OkStatus();
    SentencePieceSettings ignored;
    RETURN_IF_ERROR(ReadNormalizer(field.bytes, &ignored));
    return ForEachField(field.bytes, "the denormalizer", [&](const Field& inner) -> absl::Status {
      if (inner.number == 2 && !inner.bytes.empty()) settings.has_denormalizer = true;
      return absl::OkStatus();
    });
  };
  RETURN_IF_ERROR(ForEachField(bytes, "the file", visit));
  return settings;
}

}  // namespace hanlin
