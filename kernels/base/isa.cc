// Asks the processor once; the environment can choose a lower instruction set.
#include "kernels/base/isa.h"

#include <atomic>
#include <cstdlib>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace hanlin {
namespace {

constexpr Isa kAll[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx};

// Linux lets a process use the tiles once it has asked; all its threads may then.
bool HasAmx() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;  // of leaf 7's edx
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kBf16) != 0 &&
         (edx & kTile) != 0 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

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
    case Isa::kAmx:
      return IsSupported(Isa::kAvx512Bf16) && HasAmx();
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
    case Isa::kAmx:
      return "amx";
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
