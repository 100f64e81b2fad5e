// Damage at random: truncations and flipped bytes of every kind of weight file. Whatever happens,
// the reader answers with tensors inside the file or with an error, in bounded time and memory.
// Runs under AddressSanitizer in CI.
#include <algorithm>
#include <filesystem>
#include <random>

#include "common/io/file.h"
#include "common/testing/testing.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/test_files.h"
#include "model/checkpoint/torch_file.h"

namespace hanlin {
namespace {

using testing::PickleWriter;
using testing::TempDir;

// Touches the first and the last element of every tensor that a damaged file still yields.
void Touch(const absl::StatusOr<StoredTensors>& tensors) {
  if (!tensors.ok()) {
    EXPECT_FALSE(tensors.status().message().empty());
    return;
  }
  for (const auto& [name, tensor] : *tensors) {
    int64_t last = 0;
    bool empty = false;
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      empty = empty || tensor.shape[i] == 0;
      last += (tensor.shape[i] - 1) * tensor.strides[i];
    }
    if (empty) continue;
    const auto bytes = ElementBytes(tensor.dtype);
    volatile uint8_t sink = tensor.data[0];
    sink = tensor.data[last * bytes + bytes - 1];
    (void)sink;
  }
}

struct Sample {
  std::string name, bytes;
};

// A small file of each kind; the headers are what damage is interesting in, so the data are few.
std::vector<Sample> Samples() {
  PickleWriter writer;
  writer.Raw("}(").String("module").Raw("}(");
  for (const std::string key : {"0", "1", "2"}) {
    writer.String("tensor" + key).Tensor("FloatStorage", key, 8, 1, {2, 3}, {3, 1});
  }
  const std::string pickle = writer.Raw("u").String("epoch").Raw("K\x07u").Stop();
  const std::string data(32, '\x01');
  const std::vector<testing::Storage> storages = {{"0", data}, {"1", data}, {"2", data}};
  return {{"zip.pt", testing::TorchZip(pickle, storages)},
          {"legacy.pt", testing::TorchLegacy(pickle, storages)},
          {"flat.safetensors",
           testing::Safetensors(R"({"a":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},)"
                                R"("b":{"dtype":"F16","shape":[16],"data_offsets":[32,64]}})",
                                data + data)}};
}

absl::StatusOr<StoredTensors> ReadBytes(const TempDir& folder, const std::string& name,
                                        const std::string& bytes) {
  // A new file each time: some file systems flush a file that is truncated and written again.
  std::filesystem::remove(folder.path() + "/" + name);
  const std::string path = folder.Write(name, bytes);
  return name.ends_with(".safetensors") ? ReadSafetensors(path) : ReadTorchFile(path);
}

TEST(Damage, EveryTruncationIsAnError) {
  const TempDir folder;
  for (const Sample& sample : Samples()) {
    for (size_t size = 0; size < sample.bytes.size(); ++size) {
      EXPECT_FALSE(ReadBytes(folder, sample.name, sample.bytes.substr(0, size)).ok())
          << sample.name << " cut to " << size;
    }
  }
}

TEST(Damage, EveryBitFlipIsAnErrorOrHarmless) {
  const TempDir folder;
  for (const Sample& sample : Samples()) {
    for (size_t at = 0; at < sample.bytes.size(); ++at) {
      for (const int flip : {0x01, 0x80, 0xff}) {
        std::string bytes = sample.bytes;
        bytes[at] = static_cast<char>(bytes[at] ^ flip);
        Touch(ReadBytes(folder, sample.name, bytes));
      }
    }
  }
}

TEST(Damage, RandomSplicesAreErrorsOrHarmless) {
  const TempDir folder;
  std::mt19937 random(7);
  for (const Sample& sample : Samples()) {
    for (int round = 0; round < 2000; ++round) {
      std::string bytes = sample.bytes;
      for (uint32_t edits = random() % 4 + 1; edits > 0; --edits) {
        const size_t at = random() % bytes.size(), from = random() % bytes.size();
        const size_t length = std::min<size_t>(random() % 16, bytes.size() - std::max(at, from));
        bytes.replace(at, length, bytes.substr(from, length));
        bytes[random() % bytes.size()] = static_cast<char>(random());
      }
      Touch(ReadBytes(folder, sample.name, bytes));
    }
  }
}

// Whole golden folders with damage in the weight file, through Checkpoint::Open and a full read.
TEST(Damage, GoldenFoldersWithDamagedWeightsOpenOrFailCleanly) {
  std::mt19937 random(11);
  for (const std::string kind : {"modelscope", "hf"}) {
    for (const std::string& source : testing::GoldenCases(kind)) {
      if (!FileExists(source + "/config.json")) continue;
      ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(source));
      for (const std::string name :
           {"model.safetensors", "pytorch_model.bin", "model/mp_rank_00_model_states.pt"}) {
        if (!FileExists(source + "/" + name)) continue;
        ASSERT_OK_AND_ASSIGN(const std::string good, ReadFile(source + "/" + name));
        for (int round = 0; round < 20; ++round) {
          std::string bytes = good;
          // Headers stand at the beginning and at the end.
          const size_t at = round % 2 == 0 ? random() % 4000 : bytes.size() - 1 - random() % 4000;
          bytes[at] = static_cast<char>(random());
          if (round % 5 == 4) bytes.resize(random() % bytes.size());
          const TempDir folder;
          folder.Write(name, bytes);
          const auto checkpoint = Checkpoint::Open(folder.path(), config);
          if (!checkpoint.ok()) continue;
          for (const TensorId id : AllTensors(config)) {
            std::vector<float> values(static_cast<size_t>(LocalShape(config, id.role, 1).size()));
            EXPECT_OK((*checkpoint)->Read(id, 0, 1, values.data()));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace hanlin
