# hanlin_library / hanlin_binary / hanlin_test / hanlin_benchmark: NAME, SRCS, DEPS. Explicit DEPS make the
# direction of dependencies a property of the build (ARCHITECTURE.md).
add_library(hanlin_options INTERFACE)
target_compile_options(hanlin_options INTERFACE -Wall -Wextra -Werror -Wno-missing-field-initializers)
target_include_directories(hanlin_options INTERFACE ${CMAKE_SOURCE_DIR})

set(HANLIN_SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined")
if(HANLIN_SANITIZE)
  add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${HANLIN_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  add_link_options(-fsanitize=${HANLIN_SANITIZE})
endif()

function(hanlin_library)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  if(A_SRCS)
    add_library(${A_NAME} STATIC ${A_SRCS})
    target_link_libraries(${A_NAME} PUBLIC hanlin_options ${A_DEPS})
  else()
    add_library(${A_NAME} INTERFACE)
    target_link_libraries(${A_NAME} INTERFACE hanlin_options ${A_DEPS})
  endif()
endfunction()

function(hanlin_binary)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${A_NAME} ${A_SRCS})
  target_link_libraries(${A_NAME} PRIVATE hanlin_options ${A_DEPS})
  # Keeps the static protobuf and abseil out of the dynamic symbol table, see dependencies.cmake.
  target_link_options(${A_NAME} PRIVATE -Wl,--exclude-libs,ALL -Wl,--gc-sections)
  set_target_properties(${A_NAME} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
endfunction()

# One ctest entry per binary. DATA lists targets that must be built first (default model, jieba table, goldens).
function(hanlin_test)
  cmake_parse_arguments(A "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;DATA" ${ARGN})
  hanlin_binary(NAME ${A_NAME} SRCS ${A_SRCS} DEPS ${A_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)
  if(A_DATA)
    add_dependencies(${A_NAME} ${A_DATA})
  endif()
  add_test(NAME ${A_NAME} COMMAND ${A_NAME})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 900)  # sanitizers on two busy cores; a hang is still found
  endif()
  set_tests_properties(${A_NAME} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}"
    ENVIRONMENT "HANLIN_DATA=${CMAKE_BINARY_DIR}/share/hanlin;HANLIN_BIN=${CMAKE_BINARY_DIR}/bin;HANLIN_GOLDENS_DEFAULT=${CMAKE_BINARY_DIR}/goldens")
endfunction()

function(hanlin_benchmark)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  hanlin_binary(NAME ${A_NAME} SRCS ${A_SRCS} DEPS ${A_DEPS} benchmark::benchmark_main)
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/benchmark)
endfunction()
