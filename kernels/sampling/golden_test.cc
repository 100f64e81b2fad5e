// The distributions that ModelScope draws from, in every golden case that holds `sampling`.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/testing/testing.h"
#include "kernels/sampling/sampling.h"

namespace hanlin {
namespace {

using ::hanlin::testing::GoldenCases;
using Json = nlohmann::json;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The F32 arrays of a safetensors file: 8 bytes header size, a JSON header, the data.
class Arrays {
 public:
  explicit Arrays(const std::string& path) : bytes_(ReadFile(path)) {
    uint64_t header_size;
    std::memcpy(&header_size, bytes_.data(), sizeof(header_size));
    header_ = Json::parse(bytes_.substr(8, header_size));
    data_ = 8 + header_size;
  }
  std::vector<std::vector<float>> Rows(const std::string& name) const {
    const Json& entry = header_.at(name);
    const size_t width = entry["shape"].back();
    const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    std::vector<std::vector<float>> rows((end - begin) / sizeof(float) / width,
                                         std::vector<float>(width));
    for (size_t r = 0; r < rows.size(); ++r) {
      std::memcpy(rows[r].data(), &bytes_[data_ + begin + r * width * sizeof(float)],
                  width * sizeof(float));
    }
    return rows;
  }

 private:
  std::string bytes_;
  Json header_;
  size_t data_;
};

TEST(SamplingGolden, FilteredProbabilitiesEqualThoseOfModelScope) {
  int checked = 0;
  Sampler sampler;
  for (const std::string& folder : GoldenCases("modelscope")) {
    const Json expected = Json::parse(ReadFile(folder + "/expected.json"));
    if (!expected.contains("sampling")) continue;
    const Arrays arrays(folder + "/expected.safetensors");
    for (const Json& entry : expected["sampling"]) {
      const SamplingParams params{.temperature = entry.value("temperature", 1.0f),
                                  .top_k = entry.value("top_k", 0),
                                  .top_p = entry.value("top_p", 1.0f)};
      const auto logits = arrays.Rows(entry["logits"]), want = arrays.Rows(entry["probs"]);
      ASSERT_EQ(logits.size(), want.size());
      for (size_t r = 0; r < logits.size(); ++r) {
        const std::vector<double> got = sampler.FilteredProbabilities(logits[r], params, {});
        int kept = 0;
        for (size_t id = 0; id < got.size(); ++id) {
          EXPECT_NEAR(got[id], want[r][id], 1e-6)
              << folder << ' ' << entry << " row " << r << " id " << id;
          kept += static_cast<float>(got[id]) > 0;  // upstream counts what its fp32 softmax leaves
        }
        EXPECT_EQ(kept, entry["kept"][r].get<int>()) << folder << ' ' << entry << " row " << r;
        ++checked;
      }
    }
  }
  EXPECT_GT(checked, 0);
}

}  // namespace
}  // namespace hanlin
