// Draws the next token of every row of a batch in one launch, by the law of kernels/sampling/
// sampling.h: bit for bit the ids that Sampler draws. Everything it reads and writes stays on the
// device, so that steps can follow one another without the host.
//
// A cluster of blocks holds a row's logits in shared memory; on the plain path a single block keeps
// them in global memory. Noise is evaluated only where a cheap bound says that an id scores a bar
// which a dozen of the kept ids are expected to reach. Top-p alone asks those, best first, whether
// they are kept; other filters find their threshold through a histogram and a small exact set.
// Log-probabilities (log-softmax of the raw logits) cost a second look at the row, for rows that
// ask.
//
// Programmatic dependent launch; neither allocates nor waits; may be captured; the same call gives
// the same bits.
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_H_
#define HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_H_

#include "common/cuda/device.h"
#include "common/status/status.h"
#include "kernels/sampling/cuda/sample_params.h"
#include "kernels/sampling/sampling.h"

namespace hanlin {

inline constexpr int kSampleMaxRows = 65535;
inline constexpr int kSampleMaxVocabulary = 400000;

// The slot of a request: parameters as Sampler takes them; counts_row, logprobs, bias and banned
// are left for the caller. A slot whose HasPenalties(params) holds needs a row of counts.
SampleSlot MakeSampleSlot(const SamplingParams& params);

// Pure function of the shape and of the device: few rows share more multiprocessors each. Ids drawn
// do not depend on the plan. Plain, with a workspace, on devices that are not Hopper's.
// INVALID_ARGUMENT for a vocabulary or row count out of range.
absl::StatusOr<SamplePlan> PlanSample(int rows, int vocabulary, const CudaDevice& device);

absl::Status CudaSample(const CudaSampleParams& params, const SamplePlan& plan,
                        cudaStream_t stream);

// Fills one row of CudaSampleParams::counts from the ids of a sequence (device memory).
absl::Status CudaCountIds(const int32_t* ids, int32_t count, int32_t vocabulary, uint16_t* counts,
                          cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_SAMPLE_H_
