// A shared library of the CUDA toolkit that is opened when it is needed (cublasLt, NCCL): the
// program starts without it and says what is missing when a GPU is asked for. Stays open for the
// life of the process. Thread-safe.
#ifndef HANLIN_COMMON_CUDA_DYNAMIC_LIBRARY_H_
#define HANLIN_COMMON_CUDA_DYNAMIC_LIBRARY_H_

#include <string>
#include <string_view>

#include "common/status/status.h"

namespace hanlin {

class DynamicLibrary {
 public:
  // Opens `name` ("libcublasLt.so.13") where the loader finds it (LD_LIBRARY_PATH, ld.so.cache) or
  // in the toolkit's usual folder. FAILED_PRECONDITION names the library, the loader's reason and
  // `purpose`, what the library is wanted for ("matrix products on the GPU").
  static absl::StatusOr<DynamicLibrary> Open(std::string_view name, std::string_view purpose);

  // Stores the address of `symbol` in `function`, a function pointer of the symbol's type.
  // FAILED_PRECONDITION when the library lacks it, i.e. is too old.
  template <typename Function>
  absl::Status Find(const char* symbol, Function** function) const {
    ASSIGN_OR_RETURN(void* const address, Address(symbol));
    *function = reinterpret_cast<Function*>(address);
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<void*> Address(const char* symbol) const;

  std::string name_;
  void* handle_ = nullptr;
};

}  // namespace hanlin

#endif  // HANLIN_COMMON_CUDA_DYNAMIC_LIBRARY_H_
