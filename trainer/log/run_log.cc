// See run_log.h.
#include "trainer/log/run_log.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/status/status.h"

namespace hanlin {
namespace {

using Json = nlohmann::ordered_json;

double WallTime() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string Line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunLog>> RunLog::Create(const std::string& output,
                                                       bool tensorboard) {
  std::unique_ptr<EventWriter> events;
  if (tensorboard) {
    ASSIGN_OR_RETURN(events, EventWriter::Create(output + "/tensorboard"));
  }
  const std::string path = output + "/log.jsonl";
  FILE* const jsonl = std::fopen(path.c_str(), "ab");
  if (jsonl == nullptr) return NotFound("cannot open {}: {}", path, std::strerror(errno));
  return std::unique_ptr<RunLog>(new RunLog(jsonl, std::move(events)));
}

RunLog::~RunLog() { std::fclose(jsonl_); }

void RunLog::Complain(const std::string& text) {
  if (!complained_) fmt::print(stderr, "{}\n", text);
  complained_ = true;
}

void RunLog::WriteLine(const std::string& line) {
  if (std::fwrite(line.data(), 1, line.size(), jsonl_) != line.size() || std::fflush(jsonl_) != 0) {
    Complain(fmt::format("log.jsonl: {}", std::strerror(errno)));
  }
}

void RunLog::WriteScalars(int64_t step, std::span<const EventWriter::Scalar> scalars) {
  if (events_ == nullptr) return;
  if (const absl::Status status = events_->Write(WallTime(), step, scalars); !status.ok()) {
    Complain(Message(status));
  }
}

void RunLog::OnMessage(const std::string& text) {
  WriteLine(Line({{"kind", "message"}, {"time", WallTime()}, {"text", text}}));
}

void RunLog::OnStep(const StepReport& r) {
  WriteLine(Line({{"kind", "step"},
                  {"time", WallTime()},
                  {"step", r.step},
                  {"total_steps", r.total_steps},
                  {"epoch", r.epoch},
                  {"loss", r.loss},
                  {"lr", r.learning_rate},
                  {"gradient_norm", r.gradient_norm},
                  {"tokens_per_second", r.tokens_per_second},
                  {"mfu", r.mfu},
                  {"data_wait_seconds", r.data_wait_seconds},
                  {"memory_bytes", r.memory_bytes},
                  {"peak_memory_bytes", r.peak_memory_bytes},
                  {"seconds_left", r.seconds_left}}));
  const EventWriter::Scalar scalars[] = {{"loss", r.loss},
                                         {"lr", r.learning_rate},
                                         {"gradient_norm", r.gradient_norm},
                                         {"tokens_per_second", r.tokens_per_second},
                                         {"mfu", r.mfu},
                                         {"data_wait_seconds", r.data_wait_seconds}};
  WriteScalars(r.step, scalars);
}

void RunLog::OnEvaluation(int64_t step, const EvaluationResult& result, bool best) {
  Json json = {{"kind", "evaluation"}, {"time", WallTime()}, {"step", step},
               {"loss", result.loss},  {"ppl", result.ppl},  {"labels", result.labels}};
  std::vector<EventWriter::Scalar> scalars = {{"evaluation/loss", result.loss},
                                              {"evaluation/ppl", result.ppl}};
  if (result.ppl_modelscope.has_value()) {
    json["ppl_modelscope"] = *result.ppl_modelscope;
    scalars.push_back({"evaluation/ppl_modelscope", *result.ppl_modelscope});
  }
  if (result.texts.has_value()) {
    const EventWriter::Scalar scores[] = {{"rouge-1", result.texts->rouge_1},
                                          {"rouge-l", result.texts->rouge_l},
                                          {"bleu-1", result.texts->bleu_1},
                                          {"bleu-4", result.texts->bleu_4}};
    for (const auto& [name, value] : scores) {
      json[name] = value;
      scalars.push_back({"evaluation/" + name, value});
    }
  }
  json["best"] = best;
  WriteLine(Line(json));
  WriteScalars(step, scalars);
}

void RunLog::OnSample(int64_t step, int number, const std::string& prompt,
                      const std::string& text) {
  WriteLine(Line({{"kind", "sample"},
                  {"time", WallTime()},
                  {"step", step},
                  {"number", number},
                  {"prompt", prompt},
                  {"text", text}}));
  if (events_ == nullptr) return;
  const std::string tag = fmt::format("sample/{}", number);
  if (const absl::Status status = events_->WriteText(WallTime(), step, tag, prompt + text);
      !status.ok()) {
    Complain(Message(status));
  }
}

}  // namespace hanlin
