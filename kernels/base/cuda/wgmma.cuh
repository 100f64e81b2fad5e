// Hopper's warpgroup products of bf16 with fp32 sums, both operands in shared memory: rows of 64
// elements along k (128 bytes), swizzled over 128 bytes as the tensor copies write them. Needs
// sm_90a.
#ifndef HANLIN_KERNELS_BASE_CUDA_WGMMA_CUH_
#define HANLIN_KERNELS_BASE_CUDA_WGMMA_CUH_

#include <cstdint>

#include "kernels/base/cuda/ptx.cuh"

namespace hanlin::ptx {

// Descriptor of an operand tile at `shared` whose rows were swizzled over `kSwizzleBytes` (128 or
// 32). `stride`: bytes to the next 8 rows; `leading`: to the next panel, which only products along
// the rows look at.
template <int kSwizzleBytes>
__device__ __forceinline__ uint64_t TileDescriptor(const void* shared, int stride, int leading) {
  static_assert(kSwizzleBytes == 128 || kSwizzleBytes == 32);
  return uint64_t{kSwizzleBytes == 128 ? 1 : 3} << 62 | static_cast<uint64_t>(stride / 16) << 32 |
         static_cast<uint64_t>(leading / 16) << 16 | ((SharedAddress(shared) & 0x3ffff) >> 4);
}

// Of a tile aligned to 1024 bytes whose 8 rows of 128 bytes follow each other every 1024 bytes. Add
// 2 to step 16 elements along k inside a row.
__device__ __forceinline__ uint64_t SwizzledTile(const void* shared) {
  return TileDescriptor<128>(shared, 1024, 16);
}

__device__ __forceinline__ void WgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kPending committed groups are under way.
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// What reads d comes after the wait above this: the compiler knows nothing of products under way.
template <int kValues>
__device__ __forceinline__ void WgmmaResults(float (&d)[kValues]) {
#pragma unroll
  for (int j = 0; j < kValues; ++j) asm volatile("" : "+f"(d[j])::"memory");
}

// Operands in registers are made before the fence below this.
template <int kRows, int kWords>
__device__ __forceinline__ void WgmmaOperands(uint32_t (&a)[kRows][kWords]) {
#pragma unroll
  for (int j = 0; j < kRows * kWords; ++j) {
    asm volatile("" : "+r"(a[j / kWords][j % kWords])::"memory");
  }
}

// d [64 x kColumns] += a [64 x 16] b [kColumns x 16]^T. Lane t of warp w of the warpgroup holds, in
// d[4 j + 2 i + c], row 16 w + t / 4 + 8 i and column 8 j + t % 4 * 2 + c.
template <int kColumns>
struct Wgmma;

template <>
struct Wgmma<8> {
  static __device__ __forceinline__ void Add(float (&d)[4], uint64_t a, uint64_t b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3}, "
        "%4, %5, add, 1, 1, 0, 0;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "l"(a), "l"(b));
  }
};

template <>
struct Wgmma<16> {
  static __device__ __forceinline__ void Add(float (&d)[8], uint64_t a, uint64_t b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7}, "
        "%8, %9, add, 1, 1, 0, 0;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7])
        : "l"(a), "l"(b));
  }
};

template <>
struct Wgmma<32> {
  static __device__ __forceinline__ void Add(float (&d)[16], uint64_t a, uint64_t b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "%16, %17, add, 1, 1, 0, 0;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
          "+f"(d[14]), "+f"(d[15])
        : "l"(a), "l"(b));
  }
};

template <>
struct Wgmma<64> {
  static __device__ __forceinline__ void Add(float (&d)[32], uint64_t a, uint64_t b) {
    Product(d, a, b, true);
  }
  // Without `add`, d is overwritten.
  static __device__ __forceinline__ void Product(float (&d)[32], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.u32 add, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, add, 1, 1, 0, 0;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
          "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
          "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));
  }
};

template <>
struct Wgmma<128> {
  static __device__ __forceinline__ void Add(float (&d)[64], uint64_t a, uint64_t b) {
    Product(d, a, b, true);
  }
  // Without `add`, d is overwritten.
  static __device__ __forceinline__ void Product(float (&d)[64], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.u32 add, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, add, 1, 1, 0, 0;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
          "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
          "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
          "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
          "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
          "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
          "+f"(d[63])
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));
  }
};

// Widths in between, made of groups of four sums: HANLIN_WGMMA_SUMS_n names the registers of n of
// them, HANLIN_WGMMA_OUT the values of one group.
#define HANLIN_WGMMA_SUMS_1 "%0, %1, %2, %3"
#define HANLIN_WGMMA_SUMS_2 HANLIN_WGMMA_SUMS_1 ", %4, %5, %6, %7"
#define HANLIN_WGMMA_SUMS_3 HANLIN_WGMMA_SUMS_2 ", %8, %9, %10, %11"
#define HANLIN_WGMMA_SUMS_4 HANLIN_WGMMA_SUMS_3 ", %12, %13, %14, %15"
#define HANLIN_WGMMA_SUMS_5 HANLIN_WGMMA_SUMS_4 ", %16, %17, %18, %19"
#define HANLIN_WGMMA_SUMS_6 HANLIN_WGMMA_SUMS_5 ", %20, %21, %22, %23"
#define HANLIN_WGMMA_SUMS_7 HANLIN_WGMMA_SUMS_6 ", %24, %25, %26, %27"
#define HANLIN_WGMMA_SUMS_8 HANLIN_WGMMA_SUMS_7 ", %28, %29, %30, %31"
#define HANLIN_WGMMA_SUMS_9 HANLIN_WGMMA_SUMS_8 ", %32, %33, %34, %35"
#define HANLIN_WGMMA_SUMS_10 HANLIN_WGMMA_SUMS_9 ", %36, %37, %38, %39"
#define HANLIN_WGMMA_SUMS_11 HANLIN_WGMMA_SUMS_10 ", %40, %41, %42, %43"
#define HANLIN_WGMMA_SUMS_12 HANLIN_WGMMA_SUMS_11 ", %44, %45, %46, %47"
#define HANLIN_WGMMA_SUMS_13 HANLIN_WGMMA_SUMS_12 ", %48, %49, %50, %51"
#define HANLIN_WGMMA_SUMS_14 HANLIN_WGMMA_SUMS_13 ", %52, %53, %54, %55"
#define HANLIN_WGMMA_SUMS_15 HANLIN_WGMMA_SUMS_14 ", %56, %57, %58, %59"
#define HANLIN_WGMMA_OUT(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define HANLIN_WGMMA(columns, sums, a_operand, b_operand, ...)                                    \
  template <>                                                                                     \
  struct Wgmma<columns> {                                                                         \
    static __device__ __forceinline__ void Add(float (&d)[columns / 2], uint64_t a, uint64_t b) { \
      asm volatile(                                                                               \
          "{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"                                          \
          "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.bf16.bf16 {" sums "}, " a_operand \
          ", " b_operand ", add, 1, 1, 0, 0;\n}\n"                                                \
          : __VA_ARGS__                                                                           \
          : "l"(a), "l"(b));                                                                      \
    }                                                                                             \
  }
HANLIN_WGMMA(40, HANLIN_WGMMA_SUMS_5, "%20", "%21", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16));
HANLIN_WGMMA(48, HANLIN_WGMMA_SUMS_6, "%24", "%25", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16), HANLIN_WGMMA_OUT(20));
HANLIN_WGMMA(56, HANLIN_WGMMA_SUMS_7, "%28", "%29", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16), HANLIN_WGMMA_OUT(20),
             HANLIN_WGMMA_OUT(24));
HANLIN_WGMMA(72, HANLIN_WGMMA_SUMS_9, "%36", "%37", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16), HANLIN_WGMMA_OUT(20),
             HANLIN_WGMMA_OUT(24), HANLIN_WGMMA_OUT(28), HANLIN_WGMMA_OUT(32));
HANLIN_WGMMA(80, HANLIN_WGMMA_SUMS_10, "%40", "%41", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16), HANLIN_WGMMA_OUT(20),
             HANLIN_WGMMA_OUT(24), HANLIN_WGMMA_OUT(28), HANLIN_WGMMA_OUT(32),
             HANLIN_WGMMA_OUT(36));
HANLIN_WGMMA(88, HANLIN_WGMMA_SUMS_11, "%44", "%45", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16), HANLIN_WGMMA_OUT(20),
             HANLIN_WGMMA_OUT(24), HANLIN_WGMMA_OUT(28), HANLIN_WGMMA_OUT(32), HANLIN_WGMMA_OUT(36),
             HANLIN_WGMMA_OUT(40));
HANLIN_WGMMA(96, HANLIN_WGMMA_SUMS_12, "%48", "%49", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16), HANLIN_WGMMA_OUT(20),
             HANLIN_WGMMA_OUT(24), HANLIN_WGMMA_OUT(28), HANLIN_WGMMA_OUT(32), HANLIN_WGMMA_OUT(36),
             HANLIN_WGMMA_OUT(40), HANLIN_WGMMA_OUT(44));
HANLIN_WGMMA(104, HANLIN_WGMMA_SUMS_13, "%52", "%53", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16), HANLIN_WGMMA_OUT(20),
             HANLIN_WGMMA_OUT(24), HANLIN_WGMMA_OUT(28), HANLIN_WGMMA_OUT(32), HANLIN_WGMMA_OUT(36),
             HANLIN_WGMMA_OUT(40), HANLIN_WGMMA_OUT(44), HANLIN_WGMMA_OUT(48));
HANLIN_WGMMA(112, HANLIN_WGMMA_SUMS_14, "%56", "%57", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16), HANLIN_WGMMA_OUT(20),
             HANLIN_WGMMA_OUT(24), HANLIN_WGMMA_OUT(28), HANLIN_WGMMA_OUT(32), HANLIN_WGMMA_OUT(36),
             HANLIN_WGMMA_OUT(40), HANLIN_WGMMA_OUT(44), HANLIN_WGMMA_OUT(48),
             HANLIN_WGMMA_OUT(52));
HANLIN_WGMMA(120, HANLIN_WGMMA_SUMS_15, "%60", "%61", HANLIN_WGMMA_OUT(0), HANLIN_WGMMA_OUT(4),
             HANLIN_WGMMA_OUT(8), HANLIN_WGMMA_OUT(12), HANLIN_WGMMA_OUT(16), HANLIN_WGMMA_OUT(20),
             HANLIN_WGMMA_OUT(24), HANLIN_WGMMA_OUT(28), HANLIN_WGMMA_OUT(32), HANLIN_WGMMA_OUT(36),
             HANLIN_WGMMA_OUT(40), HANLIN_WGMMA_OUT(44), HANLIN_WGMMA_OUT(48), HANLIN_WGMMA_OUT(52),
             HANLIN_WGMMA_OUT(56));
#undef HANLIN_WGMMA
#undef HANLIN_WGMMA_OUT
#undef HANLIN_WGMMA_SUMS_1
#undef HANLIN_WGMMA_SUMS_2
#undef HANLIN_WGMMA_SUMS_3
#undef HANLIN_WGMMA_SUMS_4
#undef HANLIN_WGMMA_SUMS_5
#undef HANLIN_WGMMA_SUMS_6
#undef HANLIN_WGMMA_SUMS_7
#undef HANLIN_WGMMA_SUMS_8
#undef HANLIN_WGMMA_SUMS_9
#undef HANLIN_WGMMA_SUMS_10
#undef HANLIN_WGMMA_SUMS_11
#undef HANLIN_WGMMA_SUMS_12
#undef HANLIN_WGMMA_SUMS_13
#undef HANLIN_WGMMA_SUMS_14
#undef HANLIN_WGMMA_SUMS_15

}  // namespace hanlin::ptx

#endif  // HANLIN_KERNELS_BASE_CUDA_WGMMA_CUH_
