// Picks the copy of a kernel table that fits ActiveIsa(). A family declares its table once,
//   HANLIN_DECLARE_KERNELS(LinearKernels, kLinearKernels)
// its source, compiled once per instruction set by hanlin_kernels() of kernels/CMakeLists.txt,
// defines the constant in namespace hanlin::HANLIN_SIMD_NAMESPACE, and the caller asks for it:
//   const LinearKernels& kernels = HANLIN_ACTIVE_KERNELS(kLinearKernels);
#ifndef HANLIN_KERNELS_BASE_DISPATCH_H_
#define HANLIN_KERNELS_BASE_DISPATCH_H_

// Free of C++ library headers (see simd.h); who picks a table includes kernels/base/isa.h as well.

#if defined(__x86_64__)
#define HANLIN_DECLARE_KERNELS(type, name) \
  namespace simd_portable {                \
  extern const type name;                  \
  }                                        \
  namespace simd_avx2 {                    \
  extern const type name;                  \
  }                                        \
  namespace simd_avx512 {                  \
  extern const type name;                  \
  }                                        \
  namespace simd_avx512bf16 {              \
  extern const type name;                  \
  }
#define HANLIN_ACTIVE_KERNELS(name)                                            \
  (::hanlin::ActiveIsa() >= ::hanlin::Isa::kAvx512Bf16 ? simd_avx512bf16::name \
   : ::hanlin::ActiveIsa() == ::hanlin::Isa::kAvx512   ? simd_avx512::name     \
   : ::hanlin::ActiveIsa() == ::hanlin::Isa::kAvx2     ? simd_avx2::name       \
                                                       : simd_portable::name)
#else
#define HANLIN_DECLARE_KERNELS(type, name) \
  namespace simd_portable {                \
  extern const type name;                  \
  }
#define HANLIN_ACTIVE_KERNELS(name) (simd_portable::name)
#endif

#endif  // HANLIN_KERNELS_BASE_DISPATCH_H_
