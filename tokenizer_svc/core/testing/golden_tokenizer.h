// For tests: a tokenizer against the reference data of a golden folder, and the stream decoder's
// law on its spec.
#ifndef HANLIN_TOKENIZER_SVC_CORE_TESTING_GOLDEN_TOKENIZER_H_
#define HANLIN_TOKENIZER_SVC_CORE_TESTING_GOLDEN_TOKENIZER_H_

#include <string>

#include "tokenizer_svc/core/tokenizer.h"

namespace hanlin::testing {

// Checks every field that `path` (expected.json, or expected_tokens.json with a bare list) has:
// ids, byte offsets (given in code points), pieces, decoded text, decodes of random ids. Runs of
// byte-fallback ids that are not UTF-8 are compared as design law 2 defines them (one U+FFFD per
// stray byte). Also streams random ids.
void CheckGoldenTokenizer(const Tokenizer& tokenizer, const std::string& path);

// Random ids, out-of-range ones included, pushed one by one: the chunks are valid UTF-8 and
// concatenate to Decode.
void CheckStreamDecoderLaw(const DecoderSpec& spec, int rounds);

}  // namespace hanlin::testing

#endif  // HANLIN_TOKENIZER_SVC_CORE_TESTING_GOLDEN_TOKENIZER_H_
