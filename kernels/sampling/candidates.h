// Partial selection over a vocabulary: finds the ids that matter without sorting all of them.
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
  uint32_t weight = 0;  // for top-p, see sampling_kernels.h
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

// Top-p: keeps the candidates before which, in the order of SortByLogit, lies a weight of at most
// `limit`. `before`, at most `limit`, is the weight of ids that come before all candidates: the
// first candidate always stays.
// The order of what is left is unspecified.
void CutByWeight(uint64_t before, uint64_t limit, std::vector<Candidate>& candidates);

// The same cut over a whole vocabulary whose weights, relative to the largest logit `max`, exceed
// `limit` together; linear time whatever the distribution.
void CollectByWeight(const LogitView& view, std::span<const uint32_t> weights, float max,
                     uint64_t limit, std::vector<Candidate>& out);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_SAMPLING_CANDIDATES_H_
