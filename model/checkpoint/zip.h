// Directory of a zip archive whose entries are stored, not compressed (what torch.save writes), so
// that each entry is a range of the mapped file. zip64 is understood. Layout, read from the end:
//   [zip64 end record, zip64 locator,] end record  →  central directory: one header per entry  →
//   per entry a local header, its name and extra field, then the bytes
// Every offset is checked; a compressed, encrypted or twice named entry is refused by name.
#ifndef HANLIN_MODEL_CHECKPOINT_ZIP_H_
#define HANLIN_MODEL_CHECKPOINT_ZIP_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace hanlin {

// Name → contents, views into `archive`. DATA_LOSS says what is wrong.
using ZipEntries = std::map<std::string, std::string_view>;
absl::StatusOr<ZipEntries> ReadZip(std::string_view archive);

}  // namespace hanlin

#endif  // HANLIN_MODEL_CHECKPOINT_ZIP_H_
