// See model.h. The only file that includes libsentencepiece's header; nothing with abseil may be
// included here.
#include "tokenizer_svc/core/sentencepiece/model.h"

#include <sentencepiece_processor.h>

#include <utility>

namespace hanlin {

struct SentencePieceModel::Impl {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceModel::SentencePieceModel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SentencePieceModel::~SentencePieceModel() = default;

std::unique_ptr<SentencePieceModel> SentencePieceModel::Load(std::string_view bytes,
                                                             std::string* error) {
  auto impl = std::make_unique<Impl>();
  const auto status = impl->processor.LoadFromSerializedProto(bytes);
  if (!status.ok()) {
    *error = status.ToString();
    return nullptr;
  }
  return std::unique_ptr<SentencePieceModel>(new SentencePieceModel(std::move(impl)));
}

bool SentencePieceModel::Encode(std::string_view text, std::vector<Piece>* pieces,
                                std::string* error) const {
  sentencepiece::ImmutableSentencePieceText encoded;
  const auto status = impl_->processor.Encode(text, encoded.mutable_proto());
  if (!status.ok()) {
    *error = status.ToString();
    return false;
  }
  pieces->clear();
  pieces->reserve(encoded.pieces_size());
  for (size_t i = 0; i < encoded.pieces_size(); ++i) {
    const auto piece = encoded.pieces(static_cast<int>(i));
    pieces->push_back({static_cast<int32_t>(piece.id()), piece.begin(), piece.end()});
  }
  return true;
}

int32_t SentencePieceModel::size() const { return impl_->processor.GetPieceSize(); }
const std::string& SentencePieceModel::piece(int32_t id) const {
  return impl_->processor.IdToPiece(id);
}
bool SentencePieceModel::IsControl(int32_t id) const { return impl_->processor.IsControl(id); }
bool SentencePieceModel::IsUnknown(int32_t id) const { return impl_->processor.IsUnknown(id); }
bool SentencePieceModel::IsByte(int32_t id) const { return impl_->processor.IsByte(id); }

}  // namespace hanlin
