// DecoderSpec to and from its message, for the tokenizer service and the gateway. Thread-safe: no
// state.
#ifndef HANLIN_TOKENIZER_SVC_WIRE_DECODER_WIRE_H_
#define HANLIN_TOKENIZER_SVC_WIRE_DECODER_WIRE_H_

#include "absl/status/statusor.h"
#include "hanlin/v1/tokenizer.pb.h"
#include "tokenizer_svc/core/decoder_spec.h"

namespace hanlin {

v1::DecoderSpec DecoderSpecToProto(const DecoderSpec& spec);

// INVALID_ARGUMENT when the message is not a spec that Validate accepts; it comes from a peer.
absl::StatusOr<DecoderSpec> DecoderSpecFromProto(const v1::DecoderSpec& message);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_WIRE_DECODER_WIRE_H_
