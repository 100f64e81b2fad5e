// Bytes a second on one core over the golden lines; run from the build folder (or set
// HANLIN_GOLDENS, HANLIN_DATA).
#include <benchmark/benchmark.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "common/io/data_dir.h"
#include "common/testing/testing.h"
#include "tokenizer_svc/core/jieba/jieba.h"

namespace hanlin {
namespace {

void BM_Cut(benchmark::State& state) {
  const auto jieba = Jieba::Open(*DataDirectory() + "/jieba.bin");
  std::vector<std::string> texts;
  std::ifstream lines(testing::GoldensDirectory() + "/jieba.jsonl");
  size_t bytes = 0;
  for (std::string line; std::getline(lines, line);) {
    texts.push_back(nlohmann::json::parse(line)["text"]);
    bytes += texts.back().size();
  }
  std::vector<std::string_view> segments;
  for (auto _ : state) {
    for (const std::string& text : texts) {
      segments.clear();
      (*jieba)->Cut(text, &segments);
      benchmark::DoNotOptimize(segments.data());
    }
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes * state.iterations()));
}
BENCHMARK(BM_Cut);

}  // namespace
}  // namespace hanlin
