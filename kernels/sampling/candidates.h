// Partial selection over a vocabulary: finds the few ids that matter without sorting all of them.
// The maxima of groups of 64 logits give a lower bound of the k-th largest logit, so one pass over
// the maxima and the groups above the bound collects a small superset. Thread-safe: pure functions.
#ifndef HANLIN_KERNELS_SAMPLING_CANDIDATES_H_
#define HANLIN_KERNELS_SAMPLING_CANDIDATES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hanlin {

struct Candidate {
  float logit = 0.0f;
  int32_t id = 0;
};

struct LogitView {
  std::span<const float> logits;  // [vocabulary]
  std::span<const float> maxima;  // of each 64 of them, as SamplingKernels::group_max gives them
};

// The first id whose logit is at least `value`; 0 when there is none.
int32_t FirstAtLeast(const LogitView& view, float value);

// All ids whose logit is at least `threshold`, ascending.
void CollectAtLeast(const LogitView& view, float threshold, std::vector<Candidate>& out);

// The k (>= 1) largest logits and all that equal the k-th, ids ascending.
void CollectTopK(const LogitView& view, size_t k, std::vector<Candidate>& out);

// By logit descending, then id ascending.
void SortByLogit(std::vector<Candidate>& candidates);

// Cuts sorted candidates behind the last one whose probability before it (sum of e^(logit - max) /
// total) is <= top_p; the first stays. False when the cut lies behind the end.
bool CutTopP(float top_p, float max, double total, std::vector<Candidate>& sorted);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_SAMPLING_CANDIDATES_H_
