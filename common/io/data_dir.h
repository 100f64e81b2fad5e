// Where the files that ship with Hanlin are: $HANLIN_DATA, else ../share/hanlin beside the running
// binary.
#ifndef HANLIN_COMMON_IO_DATA_DIR_H_
#define HANLIN_COMMON_IO_DATA_DIR_H_

#include <string>

#include "absl/status/statusor.h"

namespace hanlin {

// The data directory; NOT_FOUND names the places looked at.
absl::StatusOr<std::string> DataDirectory();

// The folder of the running executable, where the sibling binaries are ($HANLIN_BIN overrides it).
std::string BinaryDirectory();

// The model used when --model is not given: DataDirectory()/models/hanlin-poet.
absl::StatusOr<std::string> DefaultModelDirectory();

}  // namespace hanlin

#endif  // HANLIN_COMMON_IO_DATA_DIR_H_
