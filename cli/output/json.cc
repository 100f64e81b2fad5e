// See json.h.
#include "cli/output/json.h"

#include <cstdio>

namespace hanlin::cli {

std::string ToLine(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void PrintJson(const Json& value) {
  const std::string line = ToLine(value) + "\n";
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

}  // namespace hanlin::cli
