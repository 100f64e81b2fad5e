// See json_file.h.
#include "tokenizer_svc/core/json/json_file.h"

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "common/status/status.h"

namespace hanlin {

absl::StatusOr<Json> ParseJsonFile(std::string_view contents) {
  if (contents.size() > kMaxJsonBytes) {
    return ResourceExhausted("the file has {} bytes, want at most {}", contents.size(),
                             kMaxJsonBytes);
  }
  std::vector<absl::flat_hash_set<std::string>> open_objects;  // Their members so far.
  std::string repeated;
  bool any_repeated = false;
  bool too_deep = false;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start:
        open_objects.emplace_back();
        [[fallthrough]];
      case Json::parse_event_t::array_start:
        too_deep |= depth >= kMaxJsonDepth;
        break;
      case Json::parse_event_t::object_end:
        open_objects.pop_back();
        break;
      case Json::parse_event_t::key:
        if (!open_objects.back().insert(value.get_ref<const std::string&>()).second &&
            !any_repeated) {
          any_repeated = true;
          repeated = value.get<std::string>();
        }
        break;
      default:
        break;
    }
    return !too_deep;  // What is too deep is parsed but not kept.
  };
  Json json = Json::parse(contents, watch, /*allow_exceptions=*/false);
  if (too_deep) return InvalidArgument("the JSON is nested deeper than {} levels", kMaxJsonDepth);
  if (any_repeated) return InvalidArgument("member \"{}\" occurs twice in one object", repeated);
  if (json.is_discarded()) return InvalidArgument("the file is not JSON");
  return json;
}

}  // namespace hanlin
