// Selection through the maxima of groups: only groups that reach the bound are looked at.
#include "kernels/sampling/candidates.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/sampling/sampling_kernels.h"

namespace hanlin {

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
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  });
}

bool CutTopP(float top_p, float max, double total, std::vector<Candidate>& sorted) {
  const double limit = static_cast<double>(top_p) * total;
  double before = 0.0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (i > 0 && before > limit) {
      sorted.resize(i);
      return true;
    }
    before += std::exp(static_cast<double>(sorted[i].logit) - static_cast<double>(max));
  }
  return false;
}

}  // namespace hanlin
