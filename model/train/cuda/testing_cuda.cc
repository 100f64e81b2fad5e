// See model/train/testing.h: models on a GPU, in fp32, as exact as the CPU's.
#include "common/cuda/device.h"
#include "model/train/cuda_train.h"
#include "model/train/testing.h"

namespace hanlin::testing {
namespace {

// Skips every test of the program where there is no GPU.
class NeedsGpu : public ::testing::Environment {
 public:
  void SetUp() override {
    const auto device = OpenCudaDevice(0);
    if (!device.ok()) GTEST_SKIP() << "needs a GPU: " << device.status();
    if (!device->hopper) GTEST_SKIP() << "needs a GPU of compute capability 9.0";
  }
};
const ::testing::Environment* const needs_gpu = ::testing::AddGlobalTestEnvironment(new NeedsGpu);

}  // namespace

const bool kTestsGroups = false;

absl::StatusOr<std::unique_ptr<TrainModel>> MakeTestedModel(const TrainModelOptions& options,
                                                            ThreadPool&) {
  return MakeCudaTrainModel(options, {.type = ComputeType::kFloat32});
}

}  // namespace hanlin::testing
