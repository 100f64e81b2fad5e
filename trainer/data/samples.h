// Tokenized samples and how a sample becomes what the model is trained on (ModelScope's rules):
//
//   stream  source ids (+ target ids) + <sep>, cut on the right to `sequence_length` S
//   tokens  stream[0, n-1), labels stream[1, n), n = the stream's length after the cut; upstream
//           pads both with 0 to S - 1
//   counted labels   continuation: t < min(source, S);
//                    with a target: source - 1 <= t < inputs - 1, where
//                    inputs = min(source + target + 1, S); nothing when the source fills everything
//
// The store keeps all ids in one array. Thread-safe once built.
#ifndef HANLIN_TRAINER_DATA_SAMPLES_H_
#define HANLIN_TRAINER_DATA_SAMPLES_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace hanlin {

struct SampleView {
  std::span<const int32_t> source;
  std::span<const int32_t> target;
  bool has_target = false;  // an empty target is not an absent one
};

class SampleStore {
 public:
  size_t size() const { return ends_.size(); }
  SampleView operator[](size_t i) const;

  // Adds a sample; `has_target` false leaves `target` out.
  void Add(std::span<const int32_t> source, std::span<const int32_t> target, bool has_target);

  // Bytes for a cache file, and back; DATA_LOSS when they are damaged. Ids must lie in
  // [0, vocab_size).
  std::string Serialize() const;
  static absl::StatusOr<SampleStore> Parse(std::string_view bytes, int32_t vocab_size);

 private:
  struct End {
    uint64_t target_begin;  // in ids_
    uint64_t end;
    uint64_t has_target;
  };
  std::vector<int32_t> ids_;
  std::vector<End> ends_;
};

// Where the labels that count are: positions [begin, end) of the model's input.
struct Counted {
  int64_t begin;
  int64_t end;
  int64_t size() const { return end > begin ? end - begin : 0; }
};

struct SampleRules {
  int64_t sequence_length = 128;
  int32_t separator = 1;
  bool all_labels = false;  // count the labels of the source as well
};

// Tokens the model is fed for a sample: the stream's length after the cut, less one; at least 0.
int64_t InputLength(const SampleRules& rules, const SampleView& sample);

Counted CountedLabels(const SampleRules& rules, const SampleView& sample);

// The stream after the cut: InputLength + 1 ids, tokens and labels in one.
std::vector<int32_t> Stream(const SampleRules& rules, const SampleView& sample);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_DATA_SAMPLES_H_
