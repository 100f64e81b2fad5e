// A set of byte strings with values, walked byte by byte: all prefixes of a text that are in the
// set, in one pass. A double array: the child of slot p by byte b is slot base[p] + b, and exists
// iff its check is p. Thread-safe: immutable once built.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_BYTE_TRIE_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_BYTE_TRIE_H_

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace hanlin {

class ByteTrie {
 public:
  static constexpr uint32_t kRoot = 0;

  // Keys are not empty and differ; values are not negative.
  static ByteTrie Build(std::vector<std::pair<std::string_view, int32_t>> entries);

  bool empty() const { return slots_.size() <= 1; }

  // Moves *node to its child by `byte`; false when there is none.
  bool Step(char byte, uint32_t* node) const {
    const uint64_t next = uint64_t{slots_[*node].base} + static_cast<uint8_t>(byte);
    if (next >= slots_.size() || slots_[next].check != *node) return false;
    *node = static_cast<uint32_t>(next);
    return true;
  }

  // The value of the key that ends at `node`, -1 when none does.
  int32_t value(uint32_t node) const { return slots_[node].value; }

 private:
  static constexpr uint32_t kFree = 0xFFFFFFFF;
  struct Slot {
    uint32_t base = 0;
    uint32_t check = kFree;
    int32_t value = -1;
  };
  struct Range {  // Entries [begin, end), which share their first `depth` bytes, hang below `node`.
    size_t begin, end, depth;
    uint32_t node;
  };
  uint32_t PlaceChildren(const std::vector<uint8_t>& bytes, uint32_t parent);

  std::vector<Slot> slots_ = std::vector<Slot>(1);
  uint32_t first_free_ = 1;  // While building: no free slot worth trying lies before it.
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_BYTE_TRIE_H_
