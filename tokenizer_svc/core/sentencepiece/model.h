// libsentencepiece behind plain C++ types. Its header declares an absl::string_view of its own, so
// it must not meet abseil in one translation unit: model.cc is the only file that includes it, and
// this header includes no abseil.
//
// Thread-safe: immutable once loaded.
#ifndef HANLIN_TOKENIZER_SVC_CORE_SENTENCEPIECE_MODEL_H_
#define HANLIN_TOKENIZER_SVC_CORE_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hanlin {

class SentencePieceModel {
 public:
  struct Piece {
    int32_t id;
    uint32_t begin, end;  // Bytes of the text, as sentencepiece gives them.
  };

  // nullptr and a message in `error` when `bytes` is no sentencepiece model.
  static std::unique_ptr<SentencePieceModel> Load(std::string_view bytes, std::string* error);
  ~SentencePieceModel();

  // False and a message in `error` on failure.
  bool Encode(std::string_view text, std::vector<Piece>* pieces, std::string* error) const;

  int32_t size() const;
  // 0 <= id < size() in all of these.
  const std::string& piece(int32_t id) const;
  bool IsControl(int32_t id) const;
  bool IsUnknown(int32_t id) const;
  bool IsByte(int32_t id) const;

 private:
  struct Impl;
  explicit SentencePieceModel(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_SENTENCEPIECE_MODEL_H_
