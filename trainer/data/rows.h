// Rows of text out of JSONL, CSV and plain-text files: a source and perhaps a target. Files are
// strangers': a row that cannot be used is reported with file and line, never a crash.
//   JSONL  one object a line; the columns are its keys, the values text
//   CSV    RFC 4180 (quotes, "" inside them, line ends inside them) with a header line; a byte
//          order mark is skipped
//   text   every line that is not empty is a source
// Thread-safe: no state.
#ifndef HANLIN_TRAINER_DATA_ROWS_H_
#define HANLIN_TRAINER_DATA_ROWS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanlin {

struct TextRow {
  std::string source;
  std::optional<std::string> target;  // absent: continuation
  int64_t line = 0;                   // 1-based, where the row begins
};

struct RowFormat {
  std::string format = "auto";  // auto | jsonl | csv | text
  std::string source_column = "src_txt";
  std::string target_column = "tgt_txt";
};

// What to do about a row that cannot be used; an error ends the reading.
using BadRow = std::function<absl::Status(int64_t line, std::string_view what)>;

// The rows of `contents`; `name` leads messages and decides the format under auto (.jsonl, .json,
// .csv, .txt). INVALID_ARGUMENT: an unknown ending, a CSV header without the source column (the
// message lists the columns).
absl::StatusOr<std::vector<TextRow>> ParseRows(std::string_view contents, const std::string& name,
                                               const RowFormat& format, const BadRow& bad_row);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_DATA_ROWS_H_
