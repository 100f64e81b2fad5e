// The scalar generator, and the noise of a single id through the vector code that draws use.
#include "kernels/sampling/philox.h"

#include "kernels/base/isa.h"

namespace hanlin {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key,
                                   int rounds) {
  for (int round = 0; round < rounds; ++round) {
    const uint64_t product0 = uint64_t{0xd2511f53u} * c[0];
    const uint64_t product1 = uint64_t{0xcd9e8d57u} * c[2];
    c = {static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += 0x9e3779b9u;
    key[1] += 0xbb67ae85u;
  }
  return c;
}

float GumbelNoise(const DrawKey& key, int32_t id) {
  int32_t ids[16];
  for (int32_t& lane : ids) lane = id;
  float noise[16];
  HANLIN_ACTIVE_KERNELS(kSamplingKernels).noise(key, ids, noise);
  return noise[0];
}

}  // namespace hanlin
