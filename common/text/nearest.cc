// See nearest.h.
#include "common/text/nearest.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace hanlin {
namespace {

size_t Edits(std::string_view a, std::string_view b) {
  // Edits between a's first i - 2, i - 1 and i characters and every prefix of b.
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    before.swap(last);
    last.swap(row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({replaced, last[j] + 1, row[j - 1] + 1});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view Nearest(std::string_view name, std::span<const std::string_view> names,
                         size_t max_edits) {
  std::string_view nearest;
  size_t limit = max_edits + 1;
  for (const std::string_view known : names) {
    if (const size_t edits = Edits(name, known); edits < limit) {
      limit = edits;
      nearest = known;
    }
  }
  return nearest;
}

}  // namespace hanlin
