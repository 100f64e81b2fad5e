// Asks the processor once; the environment can choose a lower instruction set.
#include "kernels/base/isa.h"

#include <atomic>
#include <cstdlib>

namespace hanlin {
namespace {

constexpr Isa kAll[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

bool IsSupported(Isa isa) {
#if defined(__x86_64__)
  // __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
  switch (isa) {
    case Isa::kPortable:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return IsSupported(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
    case Isa::kAvx512Bf16:
      return IsSupported(Isa::kAvx512) && __builtin_cpu_supports("avx512bf16");
  }
  return false;
#else
  return isa == Isa::kPortable;
#endif
}

Isa Choose() {
  const std::vector<Isa> supported = SupportedIsas();
  if (const char* name = std::getenv("HANLIN_CPU_ISA"); name != nullptr) {
    for (Isa isa : supported) {
      if (IsaName(isa) == name) return isa;
    }
  }
  return supported.back();
}

std::atomic<Isa>& Active() {
  static std::atomic<Isa> active{Choose()};
  return active;
}

}  // namespace

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
  }
  return "unknown";
}

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> supported;
  for (Isa isa : kAll) {
    if (IsSupported(isa)) supported.push_back(isa);
  }
  return supported;
}

Isa ActiveIsa() { return Active().load(std::memory_order_relaxed); }

void SetIsaForTesting(Isa isa) { Active().store(isa, std::memory_order_relaxed); }

}  // namespace hanlin
