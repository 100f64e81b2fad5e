# Debian packages, in the one order that works on Debian 12 (Threads, Protobuf in module mode, gRPC, absl),
# and the static bundle of gRPC: libsentencepiece exports a private protobuf 3.14, so a process that holds it
# must not see another one in the dynamic symbol table (docs/adr/0002-static-grpc.md).
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(fmt CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(GTest CONFIG REQUIRED)
find_package(benchmark CONFIG REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(oniguruma REQUIRED IMPORTED_TARGET oniguruma)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)

# Under TSan the instrumented program meets uninstrumented libraries: they are told apart by file, so they are shared
# there.
option(HANLIN_STATIC_GRPC "Link gRPC, protobuf and abseil statically" ON)

# Debian's package names the shared abseil libraries; the archives lie beside them.
if(HANLIN_STATIC_GRPC)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  list(FILTER targets INCLUDE REGEX "^absl::")
  foreach(target ${targets})
    get_target_property(library ${target} IMPORTED_LOCATION_NONE)
    if(library MATCHES "\\.so")
      string(REGEX REPLACE "\\.so.*$" ".a" archive ${library})
      if(NOT EXISTS ${archive})
        message(FATAL_ERROR "${archive} is missing, want the archives of libabsl-dev")
      endif()
      set_target_properties(${target} PROPERTIES IMPORTED_LOCATION_NONE ${archive})
    endif()
  endforeach()
endif()

set(HANLIN_ABSL absl::base absl::cord absl::status absl::statusor absl::strings absl::synchronization absl::time
  absl::flat_hash_map absl::flat_hash_set absl::random_random absl::bind_front absl::inlined_vector absl::optional
  absl::variant)
add_library(hanlin_grpc INTERFACE)
add_library(hanlin_cares INTERFACE)
if(HANLIN_STATIC_GRPC)
  target_link_libraries(hanlin_grpc INTERFACE
    -Wl,--whole-archive libgrpc++_reflection.a libgrpcpp_channelz.a -Wl,--no-whole-archive
    -Wl,--start-group libgrpc++.a libgrpc.a libgpr.a libupb.a libaddress_sorting.a libprotobuf.a libre2.a
    libcares.a libz.a libssl.a libcrypto.a ${HANLIN_ABSL} -Wl,--end-group Threads::Threads dl rt)
  target_link_libraries(hanlin_cares INTERFACE libcares.a)
else()
  target_link_libraries(hanlin_grpc INTERFACE -Wl,--no-as-needed -lgrpc++_reflection -lgrpcpp_channelz -Wl,--as-needed
    -lgrpc++ -lgrpc -lgpr -lprotobuf ${HANLIN_ABSL} Threads::Threads dl rt)
  target_link_libraries(hanlin_cares INTERFACE cares)
endif()

# UBSan's vptr check opens a pipe to look at an object; in a process that is short of descriptors, as servers in tests
# are, that fails and the check cries wolf in gRPC's headers.
if(HANLIN_SANITIZE MATCHES undefined)
  target_compile_options(hanlin_grpc INTERFACE -fno-sanitize=vptr)
endif()
