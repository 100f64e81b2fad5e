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

add_library(hanlin_grpc INTERFACE)
target_link_libraries(hanlin_grpc INTERFACE
  -Wl,--whole-archive libgrpc++_reflection.a libgrpcpp_channelz.a -Wl,--no-whole-archive
  -Wl,--start-group libgrpc++.a libgrpc.a libgpr.a libupb.a libaddress_sorting.a libprotobuf.a libre2.a
  libcares.a libz.a libssl.a libcrypto.a absl::base absl::cord absl::status absl::statusor absl::strings
  absl::synchronization absl::time absl::flat_hash_map absl::flat_hash_set absl::random_random
  absl::bind_front absl::inlined_vector absl::optional absl::variant
  -Wl,--end-group Threads::Threads dl rt)
