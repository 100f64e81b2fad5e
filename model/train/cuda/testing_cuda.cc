// See model/train/testing.h: models on a GPU, in fp32, as exact as the CPU's.
#include <memory>
#include <mutex>
#include <vector>

#include "common/cuda/device.h"
#include "model/comm/nccl/testing.h"
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

namespace {

// Ranks are threads that share the device. The communicators stay to the end of the program.
CudaCommunicator* OnDevice(Communicator* group) {
  if (group == nullptr || group->size() == 1) return nullptr;
  static std::mutex mutex;
  static auto& all = *new std::vector<std::unique_ptr<HostCudaCommunicator>>();
  const std::lock_guard lock(mutex);
  all.push_back(std::make_unique<HostCudaCommunicator>(group));
  return all.back().get();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TrainModel>> MakeTestedModel(const TrainModelOptions& options,
                                                            ThreadPool&) {
  return MakeCudaTrainModel(options, {.type = ComputeType::kFloat32,
                                      .tensor = OnDevice(options.tensor),
                                      .data = OnDevice(options.data)});
}

}  // namespace hanlin::testing
