// dlopen with a message that a user can act on.
#include "common/cuda/dynamic_library.h"

#include <dlfcn.h>

namespace hanlin {
namespace {

constexpr std::string_view kToolkitFolder = "/usr/local/cuda/lib64/";

std::string LastError() {
  const char* error = dlerror();
  return error != nullptr ? error : "no reason given";
}

}  // namespace

absl::StatusOr<DynamicLibrary> DynamicLibrary::Open(std::string_view name,
                                                    std::string_view purpose) {
  DynamicLibrary library;
  library.name_ = name;
  library.handle_ = dlopen(library.name_.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library.handle_ != nullptr) return library;
  const std::string reason = LastError();
  library.handle_ =
      dlopen((std::string(kToolkitFolder) + library.name_).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library.handle_ != nullptr) return library;
  return FailedPrecondition("{} is needed for {} and cannot be opened: {}; also not in {}", name,
                            purpose, reason, kToolkitFolder);
}

absl::StatusOr<void*> DynamicLibrary::Address(const char* symbol) const {
  dlerror();
  void* const address = dlsym(handle_, symbol);
  if (address == nullptr) {
    return FailedPrecondition("{} has no {}: {}", name_, symbol, LastError());
  }
  return address;
}

}  // namespace hanlin
