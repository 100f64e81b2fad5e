// Prints microseconds of one launch of the sampler, least and median, for batches, filters and
// distributions, in a graph of ten launches over ten different sets of logits (so that they come
// from memory where a batch is larger than the L2 cache), a position after the other. Usage:
// kernels_sampling_cuda_benchmark
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "common/cuda/stream.h"
#include "kernels/base/cuda/benchmark_main.h"
#include "kernels/sampling/cuda/sample.h"

namespace hanlin {
namespace {

constexpr int kCopies = 10;

struct Setting {
  const char* name;
  SamplingParams params;
  int logprobs = -1;
};

struct Memory {
  DeviceBuffer<float> logits, logprob, top_logprobs;
  DeviceBuffer<SampleSlot> slots;
  DeviceBuffer<int32_t> row_slots, positions, ids, top_ids;
  DeviceBuffer<uint16_t> counts;
};

struct Distribution {
  const char* name;
  float spread;     // of a normal distribution
  bool like_model;  // a few hundred likely ids stand out, as in a language model's rows
};

absl::StatusOr<Memory> Allocate(int rows, int vocabulary, const Distribution& distribution) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, distribution.spread);
  std::vector<float> logits(static_cast<size_t>(rows) * vocabulary);
  for (float& logit : logits) logit = normal(random);
  for (int r = 0; distribution.like_model && r < rows; ++r) {
    for (int rank = 0; rank < 300; ++rank) {  // probabilities fall as a power of the rank
      logits[static_cast<size_t>(r) * vocabulary + random() % vocabulary] =
          18.0f - 1.6f * std::log(static_cast<float>(rank + 1));
    }
  }
  Memory m;
  ASSIGN_OR_RETURN(m.logits, DeviceBuffer<float>::Create(kCopies * logits.size()));
  for (int i = 0; i < kCopies; ++i) {
    RETURN_IF_CUDA_ERROR(cudaMemcpy(m.logits.data() + i * logits.size(), logits.data(),
                                    logits.size() * sizeof(float), cudaMemcpyHostToDevice));
  }
  std::vector<int32_t> numbers(rows);
  for (int r = 0; r < rows; ++r) numbers[r] = r;
  ASSIGN_OR_RETURN(m.row_slots, DeviceBuffer<int32_t>::From(numbers));
  ASSIGN_OR_RETURN(m.positions, DeviceBuffer<int32_t>::From(numbers));
  ASSIGN_OR_RETURN(m.ids, DeviceBuffer<int32_t>::Create(rows));
  ASSIGN_OR_RETURN(m.logprob, DeviceBuffer<float>::Create(rows));
  ASSIGN_OR_RETURN(m.top_ids, DeviceBuffer<int32_t>::Create(rows * kSampleMaxLogprobs));
  ASSIGN_OR_RETURN(m.top_logprobs, DeviceBuffer<float>::Create(rows * kSampleMaxLogprobs));
  ASSIGN_OR_RETURN(m.slots, DeviceBuffer<SampleSlot>::Create(rows));
  ASSIGN_OR_RETURN(m.counts, DeviceBuffer<uint16_t>::Create(logits.size()));
  RETURN_IF_ERROR(m.counts.Clear());
  return m;
}

struct Times {
  double least, median;
};

absl::StatusOr<Times> Microseconds(const CudaDevice& device, const CudaStream& stream,
                                   const Memory& m, int rows, int vocabulary,
                                   const Setting& setting) {
  std::vector<SampleSlot> slots(rows, MakeSampleSlot(setting.params));
  for (int r = 0; r < rows; ++r) {
    slots[r].seed = r;
    slots[r].logprobs = setting.logprobs;
    if (HasPenalties(setting.params)) slots[r].counts_row = r;
  }
  RETURN_IF_CUDA_ERROR(
      cudaMemcpy(m.slots.data(), slots.data(), rows * sizeof(SampleSlot), cudaMemcpyHostToDevice));
  ASSIGN_OR_RETURN(const SamplePlan plan, PlanSample(rows, vocabulary, device));
  ASSIGN_OR_RETURN(const CudaGraph graph, CudaGraph::Capture(stream, [&]() -> absl::Status {
                     for (int i = 0; i < kCopies; ++i) {
                       RETURN_IF_ERROR(CudaSample(
                           {.rows = rows,
                            .vocabulary = vocabulary,
                            .logits = m.logits.data() + static_cast<size_t>(i) * rows * vocabulary,
                            .logits_stride = vocabulary,
                            .row_slots = m.row_slots.data(),
                            .slots = m.slots.data(),
                            .positions = m.positions.data(),
                            .advance = m.positions.data(),
                            .counts = m.counts.data(),
                            .ids = m.ids.data(),
                            .logprob = m.logprob.data(),
                            .top_ids = m.top_ids.data(),
                            .top_logprobs = m.top_logprobs.data()},
                           plan, stream.get()));
                     }
                     return absl::OkStatus();
                   }));
  std::vector<double> times;
  for (int i = 0; i < 9; ++i) {
    ASSIGN_OR_RETURN(const double milliseconds,
                     MeasureMilliseconds(stream, 1, 4, [&] { return graph.Launch(stream); }));
    times.push_back(milliseconds / kCopies * 1000);
  }
  std::sort(times.begin(), times.end());
  return Times{times.front(), times[times.size() / 2]};
}

absl::Status Main() {
  ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(0));
  ASSIGN_OR_RETURN(const CudaStream stream, CudaStream::Create());
  const std::vector<Setting> settings = {
      {"greedy", {.temperature = 0}},
      {"temperature 1", {}},
      {"top-k 50", {.top_k = 50}},
      {"top-p 0.9", {.top_p = 0.9f}},
      {"top-k 50, top-p 0.9", {.top_k = 50, .top_p = 0.9f}},
      {"min-p 0.05", {.min_p = 0.05f}},
      {"penalties, top-p 0.9",
       {.top_p = 0.9f,
        .repetition_penalty = 1.1f,
        .presence_penalty = 0.2f,
        .frequency_penalty = 0.1f}},
      {"top-p 0.9, 20 logprobs", {.top_p = 0.9f}, 20},
  };
  const std::vector<Distribution> distributions = {
      {"like a model's", 2.0f, true},
      {"peaked, spread 6", 6.0f, false},
      {"spread 2.5", 2.5f, false},
      {"flat, spread 0.5", 0.5f, false},
  };
  constexpr int kVocabulary = 51200;
  fmt::print("{}: microseconds a launch (least, median), vocabulary {}\n", device.name,
             kVocabulary);
  for (int rows : {1, 8, 32, 64, 128}) {
    for (const Distribution& distribution : distributions) {
      ASSIGN_OR_RETURN(const Memory memory, Allocate(rows, kVocabulary, distribution));
      for (const Setting& setting : settings) {
        ASSIGN_OR_RETURN(const Times us,
                         Microseconds(device, stream, memory, rows, kVocabulary, setting));
        fmt::print("batch {:3} {:18} {:24} {:7.2f} {:7.2f}\n", rows, distribution.name,
                   setting.name, us.least, us.median);
      }
      std::fflush(stdout);
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace hanlin

int main() { return hanlin::ExitCode(hanlin::Main()); }
