// Text to ids with the default model, bytes a second on one core; run from the build folder (or set
// HANLIN_DATA).
#include <benchmark/benchmark.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/testing/testing.h"
#include "tokenizer_svc/core/json/json_tokenizer.h"

namespace hanlin {
namespace {

void BM_Encode(benchmark::State& state) {
  const auto jieba = Jieba::Open(*DataDirectory() + "/jieba.bin");
  const auto contents = ReadFile(*DefaultModelDirectory() + "/tokenizer.json");
  const auto tokenizer = MakeJsonTokenizer(*contents, *jieba);
  std::vector<std::string> texts;
  std::ifstream lines(testing::GoldensDirectory() + "/jieba.jsonl");
  size_t bytes = 0;
  for (std::string line; std::getline(lines, line);) {
    texts.push_back(nlohmann::json::parse(line)["text"]);
    bytes += texts.back().size();
  }
  for (auto _ : state) {
    for (const std::string& text : texts) benchmark::DoNotOptimize((*tokenizer)->Encode(text));
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes * state.iterations()));
}
BENCHMARK(BM_Encode);

void BM_Load(benchmark::State& state) {
  const auto contents = ReadFile(*DefaultModelDirectory() + "/tokenizer.json");
  for (auto _ : state) benchmark::DoNotOptimize(MakeJsonTokenizer(*contents, nullptr));
}
BENCHMARK(BM_Load);

}  // namespace
}  // namespace hanlin
