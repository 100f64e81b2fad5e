// The instruction sets the CPU kernels are compiled for, and the choice between them at run time.
// A kernel family compiles one template once per Isa, each in a file of its own with its own
// compiler flags, and picks the table of ActiveIsa(). Results are bit-identical for any batch size
// and thread count under one Isa, not across.
#ifndef HANLIN_KERNELS_BASE_ISA_H_
#define HANLIN_KERNELS_BASE_ISA_H_

#include <string_view>
#include <vector>

namespace hanlin {

// Ascending: each includes what the ones before it offer. kAvx2 means AVX2 + FMA + F16C (Haswell),
// kAvx512 means F, BW, DQ, VL (Skylake server), kAvx512Bf16 adds vdpbf16ps (Cooper Lake, Zen 4),
// kAmx adds the tiles of AMX with bf16 (Sapphire Rapids): products of training use them, all other
// kernels are those of kAvx512Bf16.
enum class Isa { kPortable = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3, kAmx = 4 };

// "portable", "avx2", "avx512", "avx512bf16", "amx".
std::string_view IsaName(Isa isa);

// What this machine and this build can run, ascending; never empty.
std::vector<Isa> SupportedIsas();

// The best supported one, or a lower one named by the environment variable HANLIN_CPU_ISA when it
// was first asked for. A name that is unknown or not supported here is ignored. Thread-safe.
Isa ActiveIsa();

// Makes ActiveIsa() return `isa`, which must be supported. Not while kernels run.
void SetIsaForTesting(Isa isa);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_ISA_H_
