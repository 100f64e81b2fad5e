// See testing.h: models on the CPU.
#include "model/train/testing.h"

namespace hanlin::testing {

absl::StatusOr<std::unique_ptr<TrainModel>> MakeTestedModel(const TrainModelOptions& options,
                                                            ThreadPool& pool) {
  return MakeCpuTrainModel(options, pool);
}

}  // namespace hanlin::testing
