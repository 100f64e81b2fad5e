// The name that a misspelt one most likely meant, for messages.
#ifndef HANLIN_COMMON_TEXT_NEAREST_H_
#define HANLIN_COMMON_TEXT_NEAREST_H_

#include <cstddef>
#include <span>
#include <string_view>

namespace hanlin {

// The first of `names` that the fewest edits make of `name`, if these are at most `max_edits`, else
// empty. An edit inserts, deletes or replaces a character or swaps two neighbours.
std::string_view Nearest(std::string_view name, std::span<const std::string_view> names,
                         size_t max_edits);

}  // namespace hanlin

#endif  // HANLIN_COMMON_TEXT_NEAREST_H_
