// See convert.h.
#include "cli/convert/convert.h"

#include <filesystem>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "cli/output/progress.h"
#include "common/io/file.h"
#include "common/status/status.h"
#include "model/checkpoint/checkpoint.h"
#include "trainer/checkpoint/model_folder.h"

namespace hanlin::cli {
namespace {
namespace fs = std::filesystem;

absl::Status CheckOptions(const ConvertOptions& options) {
  if (options.format != "hf") {
    return InvalidArgument("--format is \"{}\", want hf", options.format);
  }
  if (options.dtype != "fp32" && options.dtype != "bf16") {
    return InvalidArgument("--dtype is \"{}\", want fp32 or bf16", options.dtype);
  }
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(options.to, ignored))) {
    return FailedPrecondition("{} exists, want a folder that does not", options.to);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> Convert(const ConvertOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(options.from));
  ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options.from, config));

  // Beside its place under another name, until it is whole.
  const fs::path to = fs::absolute(options.to).lexically_normal();
  const fs::path place = to.has_filename() ? to : to.parent_path();
  const fs::path temporary =
      place.parent_path() / fmt::format(".{}.tmp", place.filename().string());
  std::error_code error;
  fs::remove_all(temporary, error);
  fs::create_directories(temporary, error);
  if (error) return InvalidArgument("cannot create {}: {}", temporary.string(), error.message());
  const auto remove = absl::MakeCleanup([&] {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
  });

  const std::vector<TensorId> ids = AllTensors(config);
  Progress progress("converting");
  std::vector<float> values;
  RETURN_IF_ERROR(
      WriteModelFolder(temporary.string(), {config, options.from, options.dtype == "bf16"},
                       [&](size_t i) -> absl::StatusOr<std::span<const float>> {
                         progress.Update(static_cast<double>(i) / static_cast<double>(ids.size()));
                         values.resize(LocalShape(config, ids[i].role, 1).size());
                         RETURN_IF_ERROR(checkpoint->Read(ids[i], 0, 1, values.data()));
                         return values;
                       }));
  fs::rename(temporary, place, error);
  if (error) return FileError("cannot rename " + temporary.string(), error);
  RETURN_IF_ERROR(SyncDirectory(place.parent_path().string()));
  return config.num_parameters();
}

}  // namespace hanlin::cli
