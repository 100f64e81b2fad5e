// See rows.h.
#include "trainer/data/rows.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/status/status.h"

namespace hanlin {
namespace {

// Calls line(text without its end, number); "\r\n" counts as an end.
absl::Status ForLines(std::string_view contents,
                      const std::function<absl::Status(std::string_view, int64_t)>& line) {
  for (int64_t number = 1; !contents.empty(); ++number) {
    const size_t end = std::min(contents.find('\n'), contents.size());
    std::string_view text = contents.substr(0, end);
    contents.remove_prefix(std::min(end + 1, contents.size()));
    if (text.ends_with('\r')) text.remove_suffix(1);
    RETURN_IF_ERROR(line(text, number));
  }
  return absl::OkStatus();
}

// The text of a column; nullopt with `problem` set when it is not text.
std::optional<std::string> JsonText(const nlohmann::json& object, const std::string& column,
                                    std::string* problem) {
  const auto found = object.find(column);
  if (found == object.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  *problem = fmt::format("has a {} in column '{}', want text", found->type_name(), column);
  return std::nullopt;
}

absl::StatusOr<std::vector<TextRow>> ParseJsonl(std::string_view contents, const RowFormat& format,
                                                const BadRow& bad_row) {
  std::vector<TextRow> rows;
  RETURN_IF_ERROR(ForLines(contents, [&](std::string_view text, int64_t line) -> absl::Status {
    if (text.find_first_not_of(" \t") == text.npos) return absl::OkStatus();
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object()) return bad_row(line, "is not a JSON object");
    std::string problem;
    auto source = JsonText(json, format.source_column, &problem);
    auto target = JsonText(json, format.target_column, &problem);
    if (!problem.empty()) return bad_row(line, problem);
    if (!source.has_value()) {
      return bad_row(line, fmt::format("has no column '{}'", format.source_column));
    }
    rows.push_back({std::move(*source), std::move(target), line});
    return absl::OkStatus();
  }));
  return rows;
}

// Reads one record from the front of `rest`; false at the end. `closed` is false when a quote is
// left open at the end of the file.
bool NextRecord(std::string_view* rest, std::vector<std::string>* fields, int64_t* lines,
                bool* closed) {
  fields->clear();
  *lines = 0;
  *closed = true;
  if (rest->empty()) return false;
  std::string field;
  bool quoted = false;
  size_t i = 0;
  for (; i < rest->size(); ++i) {
    const char c = (*rest)[i];
    if (c == '\n') ++*lines;
    if (quoted) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < rest->size() && (*rest)[i + 1] == '"') {
        field += '"';
        ++i;
      } else {
        quoted = false;
      }
    } else if (c == '"' && field.empty()) {
      quoted = true;
    } else if (c == ',') {
      fields->push_back(std::move(field));
      field.clear();
    } else if (c == '\n') {
      ++i;
      break;
    } else if (c != '\r' || i + 1 >= rest->size() || (*rest)[i + 1] != '\n') {
      field += c;
    }
  }
  fields->push_back(std::move(field));
  rest->remove_prefix(i);
  *closed = !quoted;
  return true;
}

absl::StatusOr<std::vector<TextRow>> ParseCsv(std::string_view rest, const std::string& name,
                                              const RowFormat& format, const BadRow& bad_row) {
  std::vector<TextRow> rows;
  std::vector<std::string> fields, header;
  int64_t line = 1, lines = 0;
  bool closed = true;
  if (!NextRecord(&rest, &header, &lines, &closed)) return rows;
  const auto column = [&](const std::string& wanted) {
    return std::find(header.begin(), header.end(), wanted) - header.begin();
  };
  const auto source = static_cast<size_t>(column(format.source_column));
  const auto target = static_cast<size_t>(column(format.target_column));
  if (source == header.size()) {
    return InvalidArgument("{}: there is no column '{}', the header has: {}", name,
                           format.source_column, fmt::join(header, ", "));
  }
  for (line += lines; NextRecord(&rest, &fields, &lines, &closed); line += lines) {
    if (!closed) {
      RETURN_IF_ERROR(bad_row(line, "has a quote that does not end"));
    } else if (fields.size() == 1 && fields[0].empty()) {
      continue;  // an empty line
    } else if (fields.size() != header.size()) {
      RETURN_IF_ERROR(bad_row(
          line, fmt::format("has {} columns, the header has {}", fields.size(), header.size())));
    } else {
      TextRow row = {std::move(fields[source]), std::nullopt, line};
      if (target < header.size()) row.target = std::move(fields[target]);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

absl::StatusOr<std::vector<TextRow>> ParseText(std::string_view contents) {
  std::vector<TextRow> rows;
  RETURN_IF_ERROR(ForLines(contents, [&](std::string_view text, int64_t line) {
    if (!text.empty()) rows.push_back({std::string(text), std::nullopt, line});
    return absl::OkStatus();
  }));
  return rows;
}

}  // namespace

absl::StatusOr<std::vector<TextRow>> ParseRows(std::string_view contents, const std::string& name,
                                               const RowFormat& format, const BadRow& bad_row) {
  if (contents.starts_with("\xef\xbb\xbf")) contents.remove_prefix(3);
  std::string kind = format.format;
  if (kind == "auto") {
    if (name.ends_with(".jsonl") || name.ends_with(".json")) kind = "jsonl";
    if (name.ends_with(".csv")) kind = "csv";
    if (name.ends_with(".txt")) kind = "text";
  }
  if (kind == "jsonl") return ParseJsonl(contents, format, bad_row);
  if (kind == "csv") return ParseCsv(contents, name, format, bad_row);
  if (kind == "text") return ParseText(contents);
  return InvalidArgument("{}: want a file that ends in .jsonl, .csv or .txt, or data.format set",
                         name);
}

}  // namespace hanlin
