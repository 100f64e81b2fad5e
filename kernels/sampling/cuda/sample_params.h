// Parameters of the sampler on the device, plain data that host and device code share.
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_PARAMS_H_
#define HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace hanlin {

inline constexpr int kSampleMaxLogprobs = 20;

// How the sequence in one slot draws. Lives in device memory and changes only when a request comes
// or goes; MakeSampleSlot (sample.h) fills in what SamplingParams knows.
struct SampleSlot {
  uint64_t seed = 0;
  uint32_t choice = 0;
  int32_t greedy = 0;
  float scale = 1.0f;  // 1 / temperature
  int32_t top_k = 0;
  float top_p = 1.0f;
  int32_t has_min_p = 0;
  float log_min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int32_t counts_row = -1;  // row of CudaSampleParams::counts; -1 = no penalties
  int32_t logprobs = -1;    // -1 none, 0 of the drawn id, n: also the n most probable ids
  int32_t bias_begin = 0;   // in CudaSampleParams::bias; no id occurs twice
  int32_t bias_count = 0;
  // Ids that may not be drawn while the position is below banned_before (end tokens before
  // min_new_tokens), in CudaSampleParams::banned.
  int32_t banned_begin = 0;
  int32_t banned_count = 0;
  int32_t banned_before = 0;
};

struct SampleBias {
  int32_t id;
  float bias;  // -infinity forbids the id
};

// All pointers are to device memory, or to pinned host memory that the device can write.
struct CudaSampleParams {
  int32_t rows = 0;                    // 0 to 65535; none: nothing happens
  int32_t vocabulary = 0;              // 1 to kSampleMaxVocabulary (sample.h)
  const float* logits = nullptr;       // [rows, logits_stride], any alignment, 16 bytes is fast
  int64_t logits_stride = 0;           // at least vocabulary
  const int32_t* row_slots = nullptr;  // [rows]: slot of the row's sequence; -1 = padded row
  const SampleSlot* slots = nullptr;   // [slots]
  const int32_t* positions = nullptr;  // [rows]; the drawn token stands at positions[row] +
  int32_t position_offset = 0;         // position_offset
  int32_t* advance = nullptr;  // [rows] or null: one is added per row drawn; may be `positions`
  const SampleBias* bias = nullptr;
  const int32_t* banned = nullptr;
  // [counts rows, vocabulary]: how often each id occurs in prompt and output, see CudaCountIds; the
  // drawn id is counted. Null when no slot has penalties.
  uint16_t* counts = nullptr;

  float* workspace = nullptr;  // [rows, slice], aligned to 16 bytes; of plain plans

  int32_t* drawn = nullptr;  // [slots] or null: the drawn id by slot, what CudaEmbed reads
  int32_t* ids = nullptr;    // [rows] or null: the drawn id by row; padded rows get -1
  // Of rows that ask: log-probability of the drawn id, [rows]; the most probable ids in order with
  // their log-probabilities, [rows, kSampleMaxLogprobs], unused entries untouched. Null when no
  // slot asks.
  float* logprob = nullptr;
  int32_t* top_ids = nullptr;
  float* top_logprobs = nullptr;
};

inline constexpr int kSampleThreads = 1024;
inline constexpr int kSampleMaxCluster = 8;  // what every device of compute capability 9 offers
inline constexpr int kSampleScratchBytes = 12384;  // of shared memory, before the logits

// Of a block: scratch, the logits of its slice, and a byte for every four of them.
constexpr int SampleSharedBytes(int slice) { return kSampleScratchBytes + 4 * slice + slice / 4; }

// How a batch is laid out on the device; PlanSample chooses it.
struct SamplePlan {
  int cluster = 1;       // blocks that share a row
  int slice = 0;         // ids per block, a multiple of 64
  int shared_bytes = 0;  // per block
  bool plain = false;    // on any GPU: cluster is 1, the logits lie in CudaSampleParams::workspace
};

cudaError_t LaunchSample(const CudaSampleParams& params, const SamplePlan& plan,
                         cudaStream_t stream);
cudaError_t LaunchPlainSample(const CudaSampleParams& params, const SamplePlan& plan,
                              cudaStream_t stream);

// counts [vocabulary] of one row: zeroed, then one for every id of `ids` in [0, vocabulary).
cudaError_t LaunchCountIds(const int32_t* ids, int32_t count, int32_t vocabulary, uint16_t* counts,
                           cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_PARAMS_H_
