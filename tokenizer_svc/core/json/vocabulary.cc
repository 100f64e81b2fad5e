// See vocabulary.h.
#include "tokenizer_svc/core/json/vocabulary.h"

#include <algorithm>

#include "common/status/status.h"

namespace hanlin {

absl::StatusOr<Vocabulary> Vocabulary::Create(
    const std::vector<std::pair<std::string, int32_t>>& entries) {
  if (entries.size() > kMaxSize) {
    return InvalidArgument("the vocabulary has {} pieces, want at most {}", entries.size(),
                           kMaxSize);
  }
  const auto limit = static_cast<int32_t>(std::min<size_t>(kMaxSize, 4 * entries.size() + 65536));
  Vocabulary vocabulary;
  for (const auto& [piece, id] : entries) {
    if (id < 0 || id >= limit) {
      return InvalidArgument("piece \"{}\" has id {}, want 0 to {} in a vocabulary of {} pieces",
                             piece, id, limit - 1, entries.size());
    }
    const size_t size = std::max(vocabulary.pieces_.size(), static_cast<size_t>(id) + 1);
    vocabulary.pieces_.resize(size);
    vocabulary.present_.resize(size);
    if (vocabulary.present_[id]) {
      return InvalidArgument("id {} belongs to \"{}\" and to \"{}\"", id, vocabulary.pieces_[id],
                             piece);
    }
    vocabulary.pieces_[id] = piece;
    vocabulary.present_[id] = true;
  }
  vocabulary.ids_.reserve(entries.size());
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.present_[id]) continue;
    const std::string& piece = vocabulary.pieces_[id];
    const auto [at, inserted] =
        vocabulary.ids_.emplace(absl::string_view(piece.data(), piece.size()), id);
    if (!inserted) return InvalidArgument("piece \"{}\" has ids {} and {}", piece, at->second, id);
  }
  return vocabulary;
}

std::array<int32_t, 256> Vocabulary::ByteIds() const {
  std::array<int32_t, 256> ids;
  for (int byte = 0; byte < 256; ++byte) ids[byte] = Find(fmt::format("<0x{:02X}>", byte));
  return ids;
}

}  // namespace hanlin
