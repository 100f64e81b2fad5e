// See jieba.h.
#include "tokenizer_svc/core/jieba/jieba.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "common/io/sha256.h"
#include "common/status/status.h"
#include "tokenizer_svc/core/jieba/block_cutter.h"

namespace hanlin {
namespace {

struct Header {
  char magic[8];
  uint32_t slots;
  uint32_t longest_word;
  uint32_t han_characters;
  uint32_t padding;
  double unknown_weight;
};
static_assert(sizeof(Header) == 32 && sizeof(Jieba::Node) == 16);
static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[] = "HLJIEBA1";
constexpr uint32_t kMaxWordLength =
    64;  // Bounds the work per character; jieba's longest word has 16.

bool AllFinite(const double* values, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) return false;
  }
  return true;
}

absl::Status CheckHeader(const Header& header, size_t file_size, const std::string& path) {
  if (std::memcmp(header.magic, kMagic, sizeof(header.magic)) != 0) {
    return DataLoss("{} is no jieba table: it does not begin with {}", path, kMagic);
  }
  constexpr uint32_t kHan = kHanEnd - kHanBegin;
  if (header.han_characters != kHan || header.longest_word > kMaxWordLength || header.slots == 0 ||
      !std::isfinite(header.unknown_weight)) {
    return DataLoss("{}: {} Han characters, longest word {}, {} slots; want {}, at most {}, some",
                    path, header.han_characters, header.longest_word, header.slots, kHan,
                    kMaxWordLength);
  }
  const size_t wanted = sizeof(Header) + header.slots * sizeof(Jieba::Node) + sizeof(Jieba::Hmm);
  if (file_size != wanted) return DataLoss("{} has {} bytes, want {}", path, file_size, wanted);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Jieba>> Jieba::Open(const std::string& path) {
  ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, MappedFile::Open(path));
  if (file->size() < sizeof(Header)) {
    return DataLoss("{} has {} bytes, a jieba table has more", path, file->size());
  }
  Header header;
  std::memcpy(&header, file->data(), sizeof(header));
  RETURN_IF_ERROR(CheckHeader(header, file->size(), path));

  std::shared_ptr<Jieba> jieba(new Jieba(file));
  jieba->slots_ = header.slots;
  jieba->longest_word_ = header.longest_word;
  jieba->unknown_weight_ = header.unknown_weight;
  jieba->nodes_ = reinterpret_cast<const Node*>(file->data() + sizeof(Header));
  jieba->hmm_ = reinterpret_cast<const Hmm*>(jieba->nodes_ + header.slots);
  // Bases and checks need no look: every step through the trie is bounded by `slots` and
  // `longest_word`.
  for (uint32_t i = 0; i < header.slots; ++i) {
    if (!std::isfinite(jieba->nodes_[i].weight)) {
      return DataLoss("{}: slot {} has weight {}, want a number", path, i, jieba->nodes_[i].weight);
    }
  }
  if (!AllFinite(jieba->hmm_->start, sizeof(Hmm) / sizeof(double))) {
    return DataLoss("{}: the HMM holds a value that is no number", path);
  }
  jieba->sha256_ = Sha256Hex(file->view());
  return jieba;
}

void Jieba::Cut(std::string_view text, std::vector<std::string_view>* segments) const {
  BlockCutter cutter(*this, text, segments);
  size_t at = 0;
  while (at < text.size()) {
    const size_t block_end = cutter.ReadBlock(at);
    if (block_end > at) {
      cutter.CutBlock();
      at = block_end;
      continue;
    }
    const size_t length = text.substr(at, 2) == "\r\n" ? 2 : CharacterLength(text, at);
    segments->push_back(text.substr(at, length));
    at += length;
  }
}

}  // namespace hanlin
