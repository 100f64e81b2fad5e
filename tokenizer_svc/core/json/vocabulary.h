// The pieces of a model and their ids. Thread-safe: immutable once built.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_VOCABULARY_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_VOCABULARY_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hanlin {

class Vocabulary {
 public:
  static constexpr int32_t kNone = -1;
  static constexpr int32_t kMaxSize = 1 << 24;

  // Ids may have holes, but not so many that the tables would be mostly holes. INVALID_ARGUMENT:
  // too many pieces, an id too large, a piece or an id that occurs twice.
  static absl::StatusOr<Vocabulary> Create(
      const std::vector<std::pair<std::string, int32_t>>& entries);

  Vocabulary(Vocabulary&&) = default;  // The map's keys point into pieces_, whose strings stay put.
  Vocabulary& operator=(Vocabulary&&) = default;

  // kNone when there is no such piece.
  int32_t Find(std::string_view piece) const {
    const auto found = ids_.find(absl::string_view(piece.data(), piece.size()));
    return found == ids_.end() ? kNone : found->second;
  }
  // Largest id plus one.
  int32_t size() const { return static_cast<int32_t>(pieces_.size()); }
  bool Has(int32_t id) const { return id >= 0 && id < size() && present_[id]; }
  const std::string& piece(int32_t id) const { return pieces_[id]; }

  // The ids of <0x00> … <0xFF>, kNone where absent.
  std::array<int32_t, 256> ByteIds() const;

 private:
  Vocabulary() = default;
  std::vector<std::string> pieces_;  // By id.
  std::vector<bool> present_;        // By id.
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_VOCABULARY_H_
