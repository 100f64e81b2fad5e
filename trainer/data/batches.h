// Which samples an optimizer step sees, and the arrays the model is fed. The plan of an epoch is a
// pure function of (samples, recipe, epoch): it does not know ranks, so a run may go on with
// another number of them, and a resumed run sees what it would have seen. Thread-safe: no state.
#ifndef HANLIN_TRAINER_DATA_BATCHES_H_
#define HANLIN_TRAINER_DATA_BATCHES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/train/train_model.h"
#include "trainer/config/config.h"
#include "trainer/data/samples.h"

namespace hanlin {

using SampleIndices = std::vector<uint32_t>;

// The samples of every optimizer step of an epoch, in order. Shuffled by (seed, epoch); with
// data.bucket, windows of that many samples are sorted by length, cut into steps, and the steps of
// a window shuffled. With batch.tokens a step takes samples while (longest, rounded up to 32) x
// count fits; else batch.size of them. The last step may be smaller.
std::vector<SampleIndices> PlanEpoch(const TrainConfig& config, const SampleRules& rules,
                                     const SampleStore& samples, int64_t epoch);

// Rank `rank` of `size` gets a contiguous part of a step's samples, as equal as possible.
std::span<const uint32_t> ShareOf(std::span<const uint32_t> samples, int rank, int size);

struct BatchOptions {
  bool packing = false;
  bool full_length = false;  // pad every row to sequence_length - 1, as upstream does
  int64_t length_step = 1;   // else to the longest, rounded up to a multiple of this
  double drop_source = 0;    // chance that a sample with a target loses its source
  uint64_t seed = 0;
  int64_t epoch = 0;
};

// The length_step for a device: on a GPU every new shape costs its products' plans, so there are
// few; a CPU pads no more than it must.
int64_t LengthStep(const TrainConfig& config);

// A sample as it is trained on in this epoch, after drop_source.
SampleView TrainedView(const BatchOptions& options, const SampleStore& samples, uint32_t index);

// Labels that count in a set of samples.
int64_t CountLabels(const SampleRules& rules, const BatchOptions& options,
                    const SampleStore& samples, std::span<const uint32_t> indices);

// The arrays for these samples; the weight of a counted label is `weight`, others 0. Rows are
// padded with id 0. Without samples: one row of one masked token, so that a rank with nothing to do
// can still take part.
TrainBatch MakeBatch(const SampleRules& rules, const BatchOptions& options,
                     const SampleStore& samples, std::span<const uint32_t> indices, float weight);

// What MakeBatch's arrays would have, padding included.
struct BatchShape {
  int64_t sequences = 0;
  int64_t length = 0;
  int64_t tokens() const { return sequences * length; }
};
BatchShape ShapeOf(const SampleRules& rules, const BatchOptions& options,
                   const SampleStore& samples, std::span<const uint32_t> indices);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_DATA_BATCHES_H_
