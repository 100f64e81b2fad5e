// See dataset.h.
#include "trainer/data/dataset.h"

#include <atomic>
#include <filesystem>
#include <optional>

#include "common/io/file.h"
#include "common/io/sha256.h"
#include "common/status/status.h"
#include "trainer/data/rows.h"

namespace hanlin {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 30;
constexpr int kReportedRows = 5;  // of one file, in words; the rest only counts

// Bad rows of one file, by the recipe's rule.
class BadRows {
 public:
  BadRows(const DataSetOptions& options, std::string file)
      : options_(options), file_(std::move(file)) {}
  ~BadRows() {
    if (count_ > kReportedRows) {
      options_.report(fmt::format("{}: {} rows left out in all", file_, count_));
    }
  }

  absl::Status Add(int64_t line, std::string_view what) {
    const std::string message = fmt::format("{}:{}: the row {}", file_, line, what);
    if (options_.rules.bad_rows == "fail") return InvalidArgument("{}", message);
    if (++count_ <= kReportedRows) options_.report(message + "; left out");
    return absl::OkStatus();
  }

 private:
  const DataSetOptions& options_;
  const std::string file_;
  int64_t count_ = 0;
};

struct TokenizedRow {
  std::vector<int32_t> source, target;
  absl::Status status;
};

// A target continues the source, so what a tokenizer puts before a text ([CLS]) is left out.
std::vector<int32_t> WithoutLeader(const Encoding& encoding) {
  size_t first = 0;
  while (first < encoding.ids.size() && encoding.offsets[first].first == 0 &&
         encoding.offsets[first].second == 0) {
    ++first;
  }
  return {encoding.ids.begin() + static_cast<ptrdiff_t>(first), encoding.ids.end()};
}

TokenizedRow Tokenize(const DataSetOptions& options, const Tokenizer& tokenizer,
                      const TextRow& row) {
  TokenizedRow result;
  const auto source = tokenizer.EncodePrompt(PrepareSource(options.rules, row.source));
  if (!source.ok()) {
    result.status = Annotate(source.status(), "cannot be tokenized");
    return result;
  }
  result.source = source->ids;
  if (row.target.has_value()) {
    const auto target = tokenizer.EncodePrompt(*row.target);
    if (!target.ok()) {
      result.status = Annotate(target.status(), "cannot be tokenized");
      return result;
    }
    result.target = WithoutLeader(*target);
  }
  if (result.source.empty() && result.target.empty()) {
    result.status = InvalidArgument("is empty");
  }
  return result;
}

std::vector<TokenizedRow> TokenizeAll(const DataSetOptions& options, const Tokenizer& tokenizer,
                                      const std::vector<TextRow>& rows, ThreadPool& pool) {
  std::vector<TokenizedRow> results(rows.size());
  std::atomic<size_t> next = 0;
  pool.RunOnAll([&](int) {
    constexpr size_t kChunk = 64;  // long and short rows even out
    for (size_t begin; (begin = next.fetch_add(kChunk)) < rows.size();) {
      for (size_t i = begin; i < std::min(begin + kChunk, rows.size()); ++i) {
        results[i] = Tokenize(options, tokenizer, rows[i]);
      }
    }
  });
  return results;
}

absl::Status AddFile(const DataSetOptions& options, const Tokenizer& tokenizer,
                     const std::string& file, std::string_view contents, ThreadPool& pool,
                     SampleStore* store) {
  BadRows bad(options, file);
  const RowFormat format = {options.rules.format, options.rules.source_column,
                            options.rules.target_column};
  ASSIGN_OR_RETURN(const std::vector<TextRow> rows,
                   ParseRows(contents, file, format, [&bad](int64_t line, std::string_view what) {
                     return bad.Add(line, what);
                   }));
  const std::vector<TokenizedRow> tokenized = TokenizeAll(options, tokenizer, rows, pool);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!tokenized[i].status.ok()) {
      RETURN_IF_ERROR(bad.Add(rows[i].line, Message(tokenized[i].status)));
      continue;
    }
    store->Add(tokenized[i].source, tokenized[i].target, rows[i].target.has_value());
  }
  return absl::OkStatus();
}

std::optional<SampleStore> ReadCache(const DataSetOptions& options, const std::string& path) {
  if (path.empty() || !FileExists(path)) return std::nullopt;
  const auto bytes = ReadFile(path, kMaxFileBytes);
  auto store = bytes.ok() ? SampleStore::Parse(*bytes, options.vocab_size)
                          : absl::StatusOr<SampleStore>(bytes.status());
  if (store.ok()) {
    options.report(fmt::format("{} samples from the cache {}", store->size(), path));
    return std::move(store).value();
  }
  options.report(fmt::format("{}: {}; made anew", path, Message(store.status())));
  return std::nullopt;
}

}  // namespace

std::string PrepareSource(const TrainConfig::Data& rules, std::string source) {
  const std::string& from = rules.source_replace_from;
  for (size_t at = 0; !from.empty() && (at = source.find(from, at)) != source.npos;) {
    source.replace(at, from.size(), rules.source_replace_to);
    at += rules.source_replace_to.size();
  }
  return source + rules.source_suffix;
}

absl::StatusOr<SampleStore> LoadSamples(const DataSetOptions& options, const Tokenizer& tokenizer,
                                        ThreadPool& pool) {
  if (tokenizer.vocab_size() > options.vocab_size) {
    return FailedPrecondition("the tokenizer has {} ids, the model's vocabulary {}",
                              tokenizer.vocab_size(), options.vocab_size);
  }
  const TrainConfig::Data& rules = options.rules;
  std::string key =
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n", tokenizer.fingerprint(), rules.format,
                  rules.source_column, rules.target_column, rules.source_replace_from,
                  rules.source_replace_to, rules.source_suffix, rules.bad_rows);
  std::vector<std::string> contents;
  for (const std::string& file : options.files) {
    ASSIGN_OR_RETURN(std::string bytes, ReadFile(file, kMaxFileBytes));
    key +=
        fmt::format("{} {}\n", std::filesystem::path(file).extension().string(), Sha256Hex(bytes));
    contents.push_back(std::move(bytes));
  }
  const std::string cache =
      rules.cache.empty() ? "" : fmt::format("{}/{}.samples", rules.cache, Sha256Hex(key));
  if (auto cached = ReadCache(options, cache)) return std::move(*cached);
  SampleStore store;
  for (size_t i = 0; i < contents.size(); ++i) {
    RETURN_IF_ERROR(AddFile(options, tokenizer, options.files[i], contents[i], pool, &store));
  }
  if (store.size() == 0) {
    return InvalidArgument("{}: no usable row, want at least one", fmt::join(options.files, ", "));
  }
  if (!cache.empty() && options.write_cache) {
    std::error_code ignored;  // writing says what is wrong
    std::filesystem::create_directories(rules.cache, ignored);
    RETURN_IF_ERROR(WriteFileAtomically(cache, store.Serialize()));
  }
  return store;
}

}  // namespace hanlin
