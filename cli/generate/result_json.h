// The JSON objects of `hanlin generate` (command-line contract), from the pieces of the public API.
// Pure functions.
#ifndef HANLIN_CLI_GENERATE_RESULT_JSON_H_
#define HANLIN_CLI_GENERATE_RESULT_JSON_H_

#include <string>

#include "cli/output/json.h"
#include "hanlin/v1/text_generation.pb.h"

namespace hanlin::cli {

// "stop", "length", "end_token", "time_limit", "cancelled"; "" when unspecified.
std::string FinishReasonName(v1::FinishReason reason);

// Adds `piece` to what a continuation has so far; only MergePieces of all its pieces is whole.
void MergePiece(const v1::StreamGenerateResponse& piece, v1::StreamGenerateResponse* whole);

// {"prompt_ids","ids","text","finish_reason","usage",…} of a whole continuation.
Json WholeJson(const v1::StreamGenerateResponse& whole);

// {"text","ids"} of one piece; the last one adds "finish_reason" and "usage".
Json PieceJson(const v1::StreamGenerateResponse& piece);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_GENERATE_RESULT_JSON_H_
