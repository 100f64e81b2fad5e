// From logits to the next token: a pure function of logits, parameters, ids, seed and position.
//
// Order of the steps (ModelScope's where it defines one), all in fp32 unless said otherwise:
//   1. logit bias   logit += bias
//   2. penalties    for every id that occurs in prompt or output, c times in both together:
//                   logit = logit > 0 ? logit / repetition : logit * repetition; then
//                   logit -= frequency * c + presence
//   3. temperature  logit *= 1 / temperature; temperature 0 takes the largest logit, the lowest id
//                   among equals
//   4. top-k        keeps ids whose logit is at least the k-th largest: ties with the k-th stay
//   5. top-p        on the rest, sorted by logit descending, then id ascending: keeps an id while
//                   the weight before it is <= top_p * (weight of the rest), a product in double;
//                   the first always stays. A weight is the id's probability relative to the
//                   largest, as an integer (sampling_kernels.h), so every machine cuts alike
//   6. min-p        keeps ids whose probability is >= min_p times the largest
//   7. draw         the largest logit + Gumbel(seed, choice, position, id) of the kept ids
//                   (philox.h defines it bit by bit); the lowest id among equals
// Log-probabilities are log-softmax of the raw logits, before step 1.
#ifndef HANLIN_KERNELS_SAMPLING_SAMPLING_H_
#define HANLIN_KERNELS_SAMPLING_SAMPLING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/sampling/candidates.h"
#include "kernels/sampling/sampling_kernels.h"

namespace hanlin {

// Values are checked by the caller: temperature >= 0, top_k >= 0, top_p in (0, 1], min_p in [0, 1],
// repetition > 0.
struct SamplingParams {
  float temperature = 1.0f;         // 0 = greedy
  int32_t top_k = 0;                // 0 = off
  float top_p = 1.0f;               // 1 = off
  float min_p = 0.0f;               // 0 = off
  float repetition_penalty = 1.0f;  // 1 = off
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  uint32_t choice = 0;  // index of the choice when a request has several
};

// Whether the largest logit is taken, without a draw.
bool IsGreedy(const SamplingParams& params);

// Whether step 2 does anything.
bool HasPenalties(const SamplingParams& params);

struct LogitBias {
  int32_t id = 0;
  float bias = 0.0f;  // -infinity forbids the id
};

// What the step looks at besides the parameters; ids out of [0, vocabulary) are ignored.
struct SamplingContext {
  std::span<const LogitBias> logit_bias;
  std::span<const int32_t> ids;  // prompt, then output so far
  uint64_t position = 0;         // absolute position of the token to draw: ids.size() in a request
};

// Draws tokens. Holds scratch memory of the vocabulary's size: one per thread, not thread-safe.
class Sampler {
 public:
  // logits: [vocabulary], at least one, NaN counts as -infinity. Returns the id drawn.
  int32_t Sample(std::span<const float> logits, const SamplingParams& params,
                 const SamplingContext& context);

  // The distribution that Sample draws from: [vocabulary], zero for ids that are filtered out.
  // Greedy: one 1.
  std::vector<double> FilteredProbabilities(std::span<const float> logits,
                                            const SamplingParams& params,
                                            const SamplingContext& context);

 private:
  // What is left of the vocabulary: all of it, or candidates_.
  enum class Kept { kAll, kCandidates };

  // Steps 1 to 3 into adjusted_ and maxima_; returns the largest adjusted logit.
  float Adjust(std::span<const float> logits, const SamplingParams& params,
               const SamplingContext& context);
  void ApplyPenalties(const SamplingParams& params, std::span<const int32_t> ids);
  // Steps 4 to 6.
  Kept Filter(const SamplingParams& params, float max);
  Kept TopP(float top_p, float max);
  void CutCandidates(float top_p, float max);
  // Step 7.
  int32_t DrawFromAll(const DrawKey& key, float max) const;
  int32_t DrawFromCandidates(const DrawKey& key) const;
  // Takes everything but the candidates out of adjusted_.
  void MaskAllButCandidates();

  std::vector<float> adjusted_;    // [vocabulary]
  std::vector<float> maxima_;      // of groups of 64 adjusted logits
  std::vector<uint32_t> weights_;  // [vocabulary] of top-p
  std::vector<int32_t> counts_;    // [vocabulary] occurrences; all zero between calls
  std::vector<Candidate> candidates_;
};

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0.0f;  // natural logarithm
};

// log sum exp(logits), accumulated in double.
double LogSumExp(std::span<const float> logits);

// Log-probability of `id`, which must be in range.
float Logprob(std::span<const float> logits, int32_t id);

// The `count` most probable ids, by log-probability descending, then id ascending.
std::vector<TokenLogprob> TopLogprobs(std::span<const float> logits, int count);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_SAMPLING_SAMPLING_H_
