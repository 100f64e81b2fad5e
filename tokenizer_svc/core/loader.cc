// See loader.h.
#include "tokenizer_svc/core/loader.h"

#include <fmt/ranges.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/io/sha256.h"
#include "common/status/status.h"
#include "tokenizer_svc/core/jieba/jieba.h"
#include "tokenizer_svc/core/json/json_tokenizer.h"
#include "tokenizer_svc/core/sentencepiece/sentencepiece_tokenizer.h"
#include "tokenizer_svc/core/wordpiece/wordpiece_tokenizer.h"

namespace hanlin {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxTokenizerBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;

enum class Format { kJiebaJson, kJson, kWordPiece, kSentencePiece };

constexpr std::string_view FileOf(Format format) {
  switch (format) {
    case Format::kJiebaJson:
    case Format::kJson:
      return "tokenizer.json";
    case Format::kWordPiece:
      return "vocab.txt";
    case Format::kSentencePiece:
      return "tokenizer.model";
  }
  return {};
}

// The classes of transformers (and ModelScope's) that we know, each with the formats it may stand
// for, best first.
const std::map<std::string, std::vector<Format>, std::less<>>& KnownClasses() {
  static const auto* classes = new std::map<std::string, std::vector<Format>, std::less<>>{
      {"JiebaBPETokenizer", {Format::kJiebaJson}},
      {"BertTokenizer", {Format::kWordPiece, Format::kJson}},
      {"BertTokenizerFast", {Format::kWordPiece, Format::kJson}},
      {"GPT2Tokenizer", {Format::kJson}},
      {"GPT2TokenizerFast", {Format::kJson}},
      {"LlamaTokenizer", {Format::kJson, Format::kSentencePiece}},
      {"LlamaTokenizerFast", {Format::kJson, Format::kSentencePiece}},
      {"PreTrainedTokenizerFast", {Format::kJson}},
      {"TokenizersBackend", {Format::kJson}},
      {"T5Tokenizer", {Format::kJson, Format::kSentencePiece}},
      {"T5TokenizerFast", {Format::kJson, Format::kSentencePiece}},
  };
  return *classes;
}

// What the JSON files of the folder say; absent files are empty objects.
struct Folder {
  std::string path;
  json tokenizer_config = json::object();
  bool has_config = false;  // config.json exists.
  bool is_gpt2 = false;     // … with "model_type": "gpt2".
  bool has_megatron = false;

  std::string File(std::string_view name) const { return fmt::format("{}/{}", path, name); }
  bool Has(std::string_view name) const { return FileExists(File(name)); }
  // A ModelScope base or large folder.
  bool IsModelScopeB() const { return has_config && !is_gpt2 && !has_megatron; }
};

absl::StatusOr<json> ReadObject(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return InvalidArgument("{}: not a JSON object", path);
  return object;
}

absl::StatusOr<Folder> ReadFolder(const std::string& path) {
  Folder folder{.path = path};
  if (folder.Has("tokenizer_config.json")) {
    ASSIGN_OR_RETURN(folder.tokenizer_config, ReadObject(folder.File("tokenizer_config.json")));
  }
  if (folder.Has("config.json")) {
    ASSIGN_OR_RETURN(const json config, ReadObject(folder.File("config.json")));
    const auto type = config.find("model_type");
    folder.has_config = true;
    folder.is_gpt2 = type != config.end() && *type == "gpt2";
  }
  if (folder.Has("configuration.json")) {
    ASSIGN_OR_RETURN(const json configuration, ReadObject(folder.File("configuration.json")));
    folder.has_megatron = configuration.contains("megatron");
  }
  return folder;
}

absl::StatusOr<Format> FirstPresent(const Folder& folder, const std::vector<Format>& formats,
                                    std::string_view why) {
  std::vector<std::string_view> names;
  for (const Format format : formats) {
    if (folder.Has(FileOf(format))) return format;
    names.push_back(FileOf(format));
  }
  return NotFound("no tokenizer in {}: looked for {} ({})", folder.path, fmt::join(names, ", "),
                  why);
}

absl::StatusOr<Format> ChooseFormat(const Folder& folder) {
  const auto tokenizer_class = folder.tokenizer_config.find("tokenizer_class");
  if (tokenizer_class != folder.tokenizer_config.end() && !tokenizer_class->is_null()) {
    if (!tokenizer_class->is_string()) {
      return InvalidArgument("{}: tokenizer_class is not a string",
                             folder.File("tokenizer_config.json"));
    }
    const auto& name = tokenizer_class->get_ref<const std::string&>();
    const auto known = KnownClasses().find(name);
    if (known == KnownClasses().end()) {
      std::vector<std::string_view> names;
      for (const auto& entry : KnownClasses()) names.push_back(entry.first);
      return Unimplemented("{}: tokenizer_class {} is not implemented, want one of {}",
                           folder.File("tokenizer_config.json"), name, fmt::join(names, ", "));
    }
    return FirstPresent(folder, known->second, "tokenizer_class " + name);
  }
  if (folder.has_megatron && !folder.is_gpt2) {
    return FirstPresent(folder, {Format::kJiebaJson}, "configuration.json has megatron");
  }
  return FirstPresent(folder, {Format::kJson, Format::kWordPiece, Format::kSentencePiece},
                      "and no tokenizer_class in tokenizer_config.json");
}

// tokenizer_config.json's `name`: a bool, or absent or null.
absl::StatusOr<std::optional<bool>> Flag(const Folder& folder, std::string_view name) {
  const auto found = folder.tokenizer_config.find(name);
  if (found == folder.tokenizer_config.end() || found->is_null()) return std::nullopt;
  if (found->is_boolean()) return found->get<bool>();
  return InvalidArgument("{}: {} is {}, want true or false", folder.File("tokenizer_config.json"),
                         name, found->dump());
}

// A special token: "[CLS]" or {"content": "[CLS]", …}; `token` keeps its value when it is absent.
absl::Status Token(const Folder& folder, std::string_view name, std::string* token) {
  const auto found = folder.tokenizer_config.find(name);
  if (found == folder.tokenizer_config.end() || found->is_null()) return absl::OkStatus();
  const json value = found->is_object() ? found->value("content", json()) : *found;
  if (!value.is_string()) {
    return InvalidArgument("{}: {} is {}, want a string", folder.File("tokenizer_config.json"),
                           name, found->dump());
  }
  *token = value.get<std::string>();
  return absl::OkStatus();
}

absl::StatusOr<WordPieceOptions> ReadWordPieceOptions(const Folder& folder) {
  WordPieceOptions options;
  ASSIGN_OR_RETURN(const auto lower, Flag(folder, "do_lower_case"));
  ASSIGN_OR_RETURN(const auto accents, Flag(folder, "strip_accents"));
  ASSIGN_OR_RETURN(const auto chinese, Flag(folder, "tokenize_chinese_chars"));
  ASSIGN_OR_RETURN(const auto clean_up, Flag(folder, "clean_up_tokenization_spaces"));
  ASSIGN_OR_RETURN(const auto basic, Flag(folder, "do_basic_tokenize"));
  if (!basic.value_or(true)) {
    return Unimplemented("{}: do_basic_tokenize false is not implemented",
                         folder.File("tokenizer_config.json"));
  }
  options.text.lower_case = lower.value_or(true);
  options.text.strip_accents = accents.value_or(options.text.lower_case);
  options.text.isolate_chinese = chinese.value_or(true);
  options.clean_up_spaces = clean_up.value_or(true);
  options.join_chinese = folder.IsModelScopeB();
  RETURN_IF_ERROR(Token(folder, "unk_token", &options.unk_token));
  RETURN_IF_ERROR(Token(folder, "cls_token", &options.cls_token));
  RETURN_IF_ERROR(Token(folder, "sep_token", &options.sep_token));
  RETURN_IF_ERROR(Token(folder, "pad_token", &options.pad_token));
  RETURN_IF_ERROR(Token(folder, "mask_token", &options.mask_token));
  return options;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const Folder& folder, Format format,
                                                std::string_view contents,
                                                std::shared_ptr<const Jieba> jieba) {
  switch (format) {
    case Format::kJiebaJson:
    case Format::kJson:
      return MakeJsonTokenizer(contents, std::move(jieba));
    case Format::kWordPiece: {
      ASSIGN_OR_RETURN(const WordPieceOptions options, ReadWordPieceOptions(folder));
      return MakeWordPieceTokenizer(contents, options);
    }
    case Format::kSentencePiece:
      return MakeSentencePieceTokenizer(contents);
  }
  return Internal("format {}", static_cast<int>(format));
}

absl::StatusOr<std::shared_ptr<const Jieba>> OpenJieba(std::string table) {
  if (table.empty()) {
    ASSIGN_OR_RETURN(const std::string data, DataDirectory());
    table = data + "/jieba.bin";
  }
  return Jieba::Open(table);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(
    const std::string& directory, const LoadTokenizerOptions& options) {
  RETURN_IF_ERROR(ListDirectory(directory).status());
  ASSIGN_OR_RETURN(const Folder folder, ReadFolder(directory));
  ASSIGN_OR_RETURN(const Format format, ChooseFormat(folder));
  std::map<std::string, std::string> hashes;  // By name, so sorted.
  if (folder.Has("tokenizer_config.json")) {
    ASSIGN_OR_RETURN(const std::string config,
                     ReadFile(folder.File("tokenizer_config.json"), kMaxConfigBytes));
    hashes["tokenizer_config.json"] = Sha256Hex(config);
  }
  const std::string path = folder.File(FileOf(format));
  ASSIGN_OR_RETURN(const std::string contents, ReadFile(path, kMaxTokenizerBytes));
  hashes[std::string(FileOf(format))] = Sha256Hex(contents);
  std::shared_ptr<const Jieba> jieba;
  if (format == Format::kJiebaJson) {
    ASSIGN_OR_RETURN(jieba, OpenJieba(options.jieba_table));
    hashes["jieba.bin"] = jieba->sha256();
  }
  auto tokenizer = Make(folder, format, contents, std::move(jieba));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), path);
  std::string lines;
  // The same files decode differently in a ModelScope B folder.
  if ((*tokenizer)->decoder_spec()->join_chinese) lines = "modelscope-b\n";
  for (const auto& [name, hash] : hashes) lines += fmt::format("{} {}\n", name, hash);
  (*tokenizer)->set_fingerprint(Sha256Hex(lines));
  return *std::move(tokenizer);
}

}  // namespace hanlin
