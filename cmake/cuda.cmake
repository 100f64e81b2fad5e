# CUDA is optional: with nvcc at hand HANLIN_CUDA is on and the GPU's code is built; without it everything else builds
# unchanged, and asking for a GPU is an error. The runtime is linked statically, so a binary needs only the driver.
# Device code sees neither abseil nor fmt: a .cu file exports launchers that return cudaError_t, the .cc file beside it
# checks the parameters and speaks absl::Status. Under a sanitizer the host code is instrumented, the device code not.
find_program(HANLIN_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
if(HANLIN_NVCC)
  set(HANLIN_CUDA_DEFAULT ON)
else()
  set(HANLIN_CUDA_DEFAULT OFF)
endif()
option(HANLIN_CUDA "Build the code for GPUs" ${HANLIN_CUDA_DEFAULT})
set(HANLIN_CUDA_PORTABLE_ARCHITECTURES 80-real 90 CACHE STRING
  "Architectures that the kernels for any GPU are compiled for, from 80 on, as CMake's CUDA_ARCHITECTURES")
if(NOT HANLIN_CUDA)
  return()
endif()

set(CMAKE_CUDA_COMPILER ${HANLIN_NVCC})
set(CMAKE_CUDA_ARCHITECTURES 90a-real)  # most kernels are Hopper's alone
set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # CUDA::cudart_static is linked by name
if(CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 knows no flag for 20; host code beside the kernels is C++20 as everywhere
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)
# Imported targets name /usr/include; given to nvcc as a system folder it hides math.h from <cmath>.
list(APPEND CMAKE_CUDA_IMPLICIT_INCLUDE_DIRECTORIES /usr/include)
find_package(CUDAToolkit REQUIRED)

# The warnings of hanlin_options are the host compiler's; nvcc gets its own.
get_target_property(HANLIN_HOST_OPTIONS hanlin_options INTERFACE_COMPILE_OPTIONS)
set_target_properties(hanlin_options PROPERTIES INTERFACE_COMPILE_OPTIONS
  "$<$<COMPILE_LANGUAGE:C,CXX>:${HANLIN_HOST_OPTIONS}>")
set(HANLIN_CUDA_OPTIONS "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>" "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>")

# hanlin_cuda_library / hanlin_cuda_test / hanlin_cuda_benchmark: NAME, SRCS (.cc and .cu), DEPS. A test runs its host
# part everywhere and skips the rest, with a message, where there is no device; containers check its indices, for where
# there is one, host sanitizers seldom run. PORTABLE: the kernels run on every GPU that
# HANLIN_CUDA_PORTABLE_ARCHITECTURES names: those of the plain path (common/cuda/device.h), and what both paths share.
function(hanlin_cuda_library)
  cmake_parse_arguments(A "PORTABLE" "NAME" "SRCS;DEPS" ${ARGN})
  hanlin_library(NAME ${A_NAME} SRCS ${A_SRCS} DEPS ${A_DEPS} CUDA::cudart_static)
  target_compile_options(${A_NAME} PRIVATE ${HANLIN_CUDA_OPTIONS})
  if(A_PORTABLE)
    set_target_properties(${A_NAME} PROPERTIES CUDA_ARCHITECTURES "${HANLIN_CUDA_PORTABLE_ARCHITECTURES}")
    # ccache's preprocessing sees the code of one architecture alone: a change for another would give the old object.
    if(CMAKE_CUDA_COMPILER_LAUNCHER)
      set_target_properties(${A_NAME} PROPERTIES
        CUDA_COMPILER_LAUNCHER "${CMAKE_COMMAND};-E;env;CCACHE_DEPEND=1;${CMAKE_CUDA_COMPILER_LAUNCHER}")
    endif()
  endif()
endfunction()

function(hanlin_cuda_test)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  hanlin_test(NAME ${A_NAME} SRCS ${A_SRCS} DEPS ${A_DEPS} LABELS gpu)
  target_compile_definitions(${A_NAME} PRIVATE _GLIBCXX_ASSERTIONS)
endfunction()

function(hanlin_cuda_benchmark)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  hanlin_binary(NAME ${A_NAME} SRCS ${A_SRCS} DEPS ${A_DEPS})
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/benchmark)
endfunction()

# Added by the root once everything that they link is known.
set(HANLIN_CUDA_FOLDERS common/cuda kernels/base/cuda kernels/gemv/cuda kernels/decode_block/cuda kernels/decode_step/cuda kernels/gemm/cuda kernels/attention/cuda kernels/sampling/cuda kernels/norm/cuda kernels/embed/cuda kernels/elementwise/cuda kernels/loss/cuda kernels/optim/cuda model/comm/nccl model/weights/cuda model/forward/cuda model/train/cuda)
