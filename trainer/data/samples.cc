// See samples.h. Cache bytes: "hanlin-samples-1", u64 samples, u64 ids, the Ends, the ids.
#include "trainer/data/samples.h"

#include <algorithm>
#include <cstring>

#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr std::string_view kMagic = "hanlin-samples-1";

}  // namespace

SampleView SampleStore::operator[](size_t i) const {
  const uint64_t begin = i == 0 ? 0 : ends_[i - 1].end;
  const std::span<const int32_t> ids(ids_);
  return {ids.subspan(begin, ends_[i].target_begin - begin),
          ids.subspan(ends_[i].target_begin, ends_[i].end - ends_[i].target_begin),
          ends_[i].has_target != 0};
}

void SampleStore::Add(std::span<const int32_t> source, std::span<const int32_t> target,
                      bool has_target) {
  ids_.insert(ids_.end(), source.begin(), source.end());
  const uint64_t target_begin = ids_.size();
  if (has_target) ids_.insert(ids_.end(), target.begin(), target.end());
  ends_.push_back({target_begin, ids_.size(), has_target ? 1u : 0u});
}

std::string SampleStore::Serialize() const {
  std::string bytes(kMagic);
  const auto append = [&bytes](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
  };
  const uint64_t counts[] = {ends_.size(), ids_.size()};
  append(counts, sizeof(counts));
  append(ends_.data(), ends_.size() * sizeof(End));
  append(ids_.data(), ids_.size() * sizeof(int32_t));
  return bytes;
}

absl::StatusOr<SampleStore> SampleStore::Parse(std::string_view bytes, int32_t vocab_size) {
  uint64_t counts[2] = {};
  if (!bytes.starts_with(kMagic) || bytes.size() < kMagic.size() + sizeof(counts)) {
    return DataLoss("is not a cache of samples");
  }
  bytes.remove_prefix(kMagic.size());
  std::memcpy(counts, bytes.data(), sizeof(counts));
  bytes.remove_prefix(sizeof(counts));
  const uint64_t limit = bytes.size();  // bounds both counts, so the products do not overflow
  if (counts[0] > limit || counts[1] > limit ||
      counts[0] * sizeof(End) + counts[1] * sizeof(int32_t) != limit) {
    return DataLoss("holds {} bytes for {} samples and {} ids", limit, counts[0], counts[1]);
  }
  SampleStore store;
  store.ends_.resize(counts[0]);
  store.ids_.resize(counts[1]);
  std::memcpy(store.ends_.data(), bytes.data(), counts[0] * sizeof(End));
  std::memcpy(store.ids_.data(), bytes.data() + counts[0] * sizeof(End),
              counts[1] * sizeof(int32_t));
  uint64_t begin = 0;
  for (const End& end : store.ends_) {
    if (end.target_begin < begin || end.end < end.target_begin || end.end > counts[1]) {
      return DataLoss("has a sample outside its ids");
    }
    begin = end.end;
  }
  for (const int32_t id : store.ids_) {
    if (id < 0 || id >= vocab_size) {
      return DataLoss("holds id {}, want [0, {})", id, vocab_size);
    }
  }
  return store;
}

int64_t InputLength(const SampleRules& rules, const SampleView& sample) {
  const auto stream = static_cast<int64_t>(sample.source.size() + sample.target.size()) + 1;
  return std::min(stream, rules.sequence_length) - 1;
}

Counted CountedLabels(const SampleRules& rules, const SampleView& sample) {
  const int64_t length = InputLength(rules, sample);
  const auto source = std::min<int64_t>(sample.source.size(), rules.sequence_length);
  if (!sample.has_target || rules.all_labels) return {0, length};
  return {std::max<int64_t>(0, source - 1), length};
}

std::vector<int32_t> Stream(const SampleRules& rules, const SampleView& sample) {
  std::vector<int32_t> ids(sample.source.begin(), sample.source.end());
  ids.insert(ids.end(), sample.target.begin(), sample.target.end());
  ids.push_back(rules.separator);
  if (static_cast<int64_t>(ids.size()) > rules.sequence_length) ids.resize(rules.sequence_length);
  return ids;
}

}  // namespace hanlin
