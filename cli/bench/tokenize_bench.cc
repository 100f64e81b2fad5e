// See tokenize_bench.h.
#include "cli/bench/tokenize_bench.h"

#include <atomic>
#include <chrono>
#include <iterator>
#include <vector>

#include "cli/model/model_flags.h"
#include "common/io/file.h"
#include "common/status/status.h"
#include "common/threading/thread_pool.h"
#include "tokenizer_svc/core/stream_decoder.h"
#include "tokenizer_svc/core/tokenizer.h"

namespace hanlin::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Poems, prose, numbers and Latin words; the lines are combined so that no two of the corpus are
// alike.
constexpr std::string_view kLines[] = {
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    "国破山河在，城春草木深。感时花溅泪，恨别鸟惊心。",
    "大江东去，浪淘尽，千古风流人物。故垒西边，人道是，三国周郎赤壁。",
    "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？",
    "人工智能模型的训练需要大量的数据和计算资源，推理服务则看重延迟与吞吐。",
    "2023年第3季度，公司营收同比增长12.5%，达到48.6亿元人民币。",
    "他从北京大学毕业以后，在上海的一家软件公司工作了三年，后来又回到家乡办学。",
    "The quick brown fox jumps over the lazy dog, 版本号 v2.7.1-beta。",
    "长江是中国第一大河，发源于青藏高原，全长约6300公里，流经十一个省级行政区。",
    "“你吃饭了吗？”她笑着问。“还没有，”他说，“等你一起。”",
};

std::vector<std::string> BuiltInCorpus() {
  std::vector<std::string> lines;
  for (size_t i = 0; i < 4000; ++i) {
    const size_t count = std::size(kLines);
    lines.push_back(fmt::format("{}{}{}", kLines[i % count], i, kLines[i / count * 7 % count]));
  }
  return lines;
}

absl::StatusOr<std::vector<std::string>> LoadCorpus(const std::string& input) {
  if (input.empty()) return BuiltInCorpus();
  ASSIGN_OR_RETURN(const std::string text, ReadFile(input));
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  if (lines.empty()) return InvalidArgument("{} has no lines", input);
  return lines;
}

// Runs `one(line)` over the lines, again and again, until the time is over; lines done a second.
template <typename One>
double LinesPerSecond(size_t lines, double seconds, ThreadPool& pool, const One& one) {
  std::atomic<size_t> done = 0;
  const Clock::time_point start = Clock::now();
  const Clock::time_point deadline =
      start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  pool.RunOnAll([&](int thread) {
    size_t mine = 0;
    // Every thread begins elsewhere; the clock is looked at once a line.
    for (size_t i = lines * thread / pool.num_threads(); Clock::now() < deadline; ++i, ++mine)
      one(i % lines);
    done += mine;
  });
  return static_cast<double>(done) / std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

absl::StatusOr<Json> BenchTokenize(const TokenizeBenchOptions& options) {
  if (options.threads < 1)
    return InvalidArgument("--threads is {}, want at least 1", options.threads);
  ASSIGN_OR_RETURN(const auto tokenizer, LoadModelTokenizer(options.model));
  ASSIGN_OR_RETURN(const std::vector<std::string> lines, LoadCorpus(options.input));
  double bytes = 0;
  double tokens = 0;
  std::vector<std::vector<int32_t>> ids;
  for (const std::string& line : lines) {
    ASSIGN_OR_RETURN(Encoding encoding, tokenizer->Encode(line));
    bytes += static_cast<double>(line.size());
    tokens += static_cast<double>(encoding.ids.size());
    ids.push_back(std::move(encoding.ids));
  }
  ThreadPool pool(options.threads);
  std::atomic<size_t> sink = 0;
  const double encoded = LinesPerSecond(lines.size(), options.seconds, pool, [&](size_t i) {
    sink += tokenizer->Encode(lines[i])->ids.size();
  });
  const double decoded = LinesPerSecond(lines.size(), options.seconds / 3, pool, [&](size_t i) {
    sink += StreamDecoder::Decode(*tokenizer->decoder_spec(), ids[i]).size();
  });
  const double line_bytes = bytes / static_cast<double>(lines.size());
  return Json{{"bench", "tokenize"},
              {"tokenizer", std::string(tokenizer->kind())},
              {"corpus", options.input.empty() ? "built-in" : options.input},
              {"threads", options.threads},
              {"bytes", bytes},
              {"tokens", tokens},
              {"mb_per_second", encoded * line_bytes / 1e6},
              {"tokens_per_second", encoded * tokens / static_cast<double>(lines.size())},
              {"decode_mb_per_second", decoded * line_bytes / 1e6}};
}

}  // namespace hanlin::cli
