// One JSON object a line on stdout, as the command-line contract asks: fields in the order they
// were added, text as UTF-8, flushed so that a reader of a pipe sees each line at once.
#ifndef HANLIN_CLI_OUTPUT_JSON_H_
#define HANLIN_CLI_OUTPUT_JSON_H_

#include <nlohmann/json.hpp>
#include <string>

namespace hanlin::cli {

using Json = nlohmann::ordered_json;

// Without spaces or line ends; broken UTF-8 becomes U+FFFD, numbers that are not finite become
// null.
std::string ToLine(const Json& value);

void PrintJson(const Json& value);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_OUTPUT_JSON_H_
