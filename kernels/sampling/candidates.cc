// Top-k through the maxima of groups: only groups that reach the bound are looked at. Top-p through
// weights summed by bins of the logit: all of the bins before the crossing stay, and within the
// crossing's own bin a quickselect by weight finds the border.
#include "kernels/sampling/candidates.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/sampling/sampling_kernels.h"

namespace hanlin {
namespace {

bool ComesBefore(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

}  // namespace

int32_t FirstAtLeast(const LogitView& view, float value) {
  for (size_t group = 0; group < view.maxima.size(); ++group) {
    if (!(view.maxima[group] >= value)) continue;
    for (size_t id = group * kLogitGroup;; ++id) {
      if (view.logits[id] >= value) return static_cast<int32_t>(id);
    }
  }
  return 0;
}

void CollectAtLeast(const LogitView& view, float threshold, std::vector<Candidate>& out) {
  out.clear();
  for (size_t group = 0; group < view.maxima.size(); ++group) {
    if (!(view.maxima[group] >= threshold)) continue;
    const size_t end = std::min<size_t>((group + 1) * kLogitGroup, view.logits.size());
    for (size_t id = group * kLogitGroup; id < end; ++id) {
      if (view.logits[id] >= threshold) out.push_back({view.logits[id], static_cast<int32_t>(id)});
    }
  }
}

void CollectTopK(const LogitView& view, size_t k, std::vector<Candidate>& out) {
  float bound = -std::numeric_limits<float>::infinity();
  if (k <= view.maxima.size()) {
    // k groups hold a logit of at least the k-th largest maximum, so the k-th largest logit is not
    // below it.
    std::vector<float> maxima(view.maxima.begin(), view.maxima.end());
    std::nth_element(maxima.begin(), maxima.begin() + (k - 1), maxima.end(), std::greater<>());
    bound = maxima[k - 1];
  }
  CollectAtLeast(view, bound, out);
  if (out.size() <= k) return;
  std::vector<float> logits(out.size());
  std::transform(out.begin(), out.end(), logits.begin(),
                 [](const Candidate& c) { return c.logit; });
  std::nth_element(logits.begin(), logits.begin() + (k - 1), logits.end(), std::greater<>());
  std::erase_if(out, [kth = logits[k - 1]](const Candidate& c) { return c.logit < kth; });
}

void SortByLogit(std::vector<Candidate>& candidates) {
  std::sort(candidates.begin(), candidates.end(), ComesBefore);
}

void CutByWeight(uint64_t before, uint64_t limit, std::vector<Candidate>& candidates) {
  constexpr std::ptrdiff_t kSorted = 64;
  auto begin = candidates.begin(), end = candidates.end();
  while (end - begin > kSorted) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, ComesBefore);
    uint64_t through = before;
    for (auto i = begin; i != middle; ++i) through += i->weight;
    if (through > limit) {
      end = middle;
    } else {
      begin = middle;
      before = through;
    }
  }
  std::sort(begin, end, ComesBefore);
  auto last = begin;
  while (last != end && before <= limit) {
    before += last->weight;
    ++last;
  }
  candidates.erase(last, candidates.end());
}

void CollectByWeight(const LogitView& view, std::span<const uint32_t> weights, float max,
                     uint64_t limit, std::vector<Candidate>& out) {
  constexpr int kBins = 2048;
  constexpr float kRange = -kLowestWeighed;
  const auto bin_of = [max](float logit) {
    return static_cast<int>(std::min((max - logit) * (kBins / kRange), kBins - 1.0f));
  };
  std::vector<uint64_t> sums(kBins);
  for (size_t id = 0; id < weights.size(); ++id) sums[bin_of(view.logits[id])] += weights[id];
  int crossing = 0;
  uint64_t before = 0;
  while (crossing < kBins - 1 && before + sums[crossing] <= limit) before += sums[crossing++];

  std::vector<Candidate> border;
  out.clear();
  for (size_t group = 0; group < view.maxima.size(); ++group) {
    if (bin_of(view.maxima[group]) > crossing) continue;
    const size_t end = std::min<size_t>((group + 1) * kLogitGroup, view.logits.size());
    for (size_t id = group * kLogitGroup; id < end; ++id) {
      const int bin = bin_of(view.logits[id]);
      if (bin > crossing) continue;
      (bin < crossing ? out : border)
          .push_back({view.logits[id], static_cast<int32_t>(id), weights[id]});
    }
  }
  CutByWeight(before, limit, border);
  out.insert(out.end(), border.begin(), border.end());
}

}  // namespace hanlin
