// See unicode_forms.h. Decomposition, canonical ordering and composition as in Unicode Standard
// Annex 15; a character carries its change along: the first of a decomposition replaces (0), the
// others are added (1), and a composition of two has the sum less one.
#include "tokenizer_svc/core/json/unicode_forms.h"

#include <utf8proc.h>

#include <algorithm>

namespace hanlin {
namespace {

// Characters that no form changes and that never compose with the character before them.
bool IsInert(char32_t code) { return code < 0xA0 || (code >= 0x4E00 && code <= 0x9FFF); }

int CombiningClass(char32_t code) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(code))->combining_class;
}

void AppendDecomposition(char32_t code, bool compatibility, std::vector<CharacterChange>* out) {
  utf8proc_int32_t parts[64];
  int boundary = 0;
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0));
  const utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts,
                                                         std::size(parts), options, &boundary);
  if (count <= 0 || count > static_cast<utf8proc_ssize_t>(std::size(parts))) {
    out->push_back({code, 0});
    return;
  }
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    out->push_back({static_cast<char32_t>(parts[i]), i == 0 ? 0 : 1});
  }
}

void OrderCanonically(std::vector<CharacterChange>* run) {
  for (auto begin = run->begin(); begin != run->end();) {
    if (CombiningClass(begin->code) == 0) {
      ++begin;
      continue;
    }
    auto end = begin;
    while (end != run->end() && CombiningClass(end->code) != 0) ++end;
    std::stable_sort(begin, end, [](const CharacterChange& a, const CharacterChange& b) {
      return CombiningClass(a.code) < CombiningClass(b.code);
    });
    begin = end;
  }
}

// The primary composite of two characters, 0 when there is none.
char32_t ComposePair(char32_t first, char32_t second) {
  utf8proc_int32_t pair[3] = {static_cast<utf8proc_int32_t>(first),
                              static_cast<utf8proc_int32_t>(second), 0};
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  return utf8proc_normalize_utf32(pair, 2, options) == 1 ? static_cast<char32_t>(pair[0]) : 0;
}

void Compose(std::vector<CharacterChange>* run) {
  size_t kept = 0;
  size_t starter = run->size();  // None yet.
  int last_class = -1;           // Combining class of the last kept character behind the starter.
  for (size_t i = 0; i < run->size(); ++i) {
    const CharacterChange current = (*run)[i];
    const int combining_class = CombiningClass(current.code);
    if (starter < kept && last_class < combining_class) {
      if (const char32_t composite = ComposePair((*run)[starter].code, current.code)) {
        (*run)[starter] = {composite, (*run)[starter].change + current.change - 1};
        continue;
      }
    }
    if (combining_class == 0) {
      starter = kept;
      last_class = -1;
    } else {
      last_class = combining_class;
    }
    (*run)[kept++] = current;
  }
  run->resize(kept);
}

}  // namespace

std::vector<CharacterChange> NormalizeUnicode(std::string_view text, UnicodeForm form) {
  std::vector<char32_t> codes;
  codes.reserve(text.size());
  for (size_t at = 0; at < text.size();) codes.push_back(TakeCharacter(text, &at));
  const auto stands_alone = [&](size_t i) {
    return IsInert(codes[i]) && (i + 1 == codes.size() || IsInert(codes[i + 1]));
  };

  std::vector<CharacterChange> out;
  out.reserve(codes.size());
  std::vector<CharacterChange> run;
  for (size_t i = 0; i < codes.size();) {
    if (stands_alone(i)) {
      out.push_back({codes[i++], 0});
      continue;
    }
    run.clear();
    for (; i < codes.size() && !stands_alone(i); ++i) {
      AppendDecomposition(codes[i], form.compatibility, &run);
    }
    OrderCanonically(&run);
    if (form.compose) Compose(&run);
    out.insert(out.end(), run.begin(), run.end());
  }
  return out;
}

}  // namespace hanlin
