// One tensor-parallel rank of a GPT on a GPU: its slice of the weights, its heads of the KV cache,
// the forward pass over a step plan, and the draw of the next tokens.
//
// A step's plan goes up through pinned memory, the step runs without the host, and its draws come
// back through pinned memory. Two steps may be in flight: the second may feed on ids that the first
// draws (an id -1 - r in its plan), so the device never waits for the host. Steps in which every
// sequence has one token are replayed from CUDA graphs, one per batch bucket; others are launched
// kernel by kernel, in passes of bounded size.
//
// Thread safety: one thread at a time; metrics() from any.
#ifndef HANLIN_MODEL_FORWARD_CUDA_CUDA_MODEL_H_
#define HANLIN_MODEL_FORWARD_CUDA_CUDA_MODEL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "common/cuda/pinned.h"
#include "common/cuda/stream.h"
#include "common/threading/thread_pool.h"
#include "model/checkpoint/checkpoint.h"
#include "model/comm/nccl/cuda_communicator.h"
#include "model/forward/cuda/pass_plan.h"
#include "model/forward/cuda/transformer.h"
#include "model/forward/forward_model.h"
#include "model/weights/cuda/cuda_weights.h"

namespace hanlin {

class CudaGptModel : public ForwardModel {
 public:
  struct Options {
    const Checkpoint* checkpoint = nullptr;  // read during Create only
    ComputeType compute_type = ComputeType::kBFloat16;
    int device = 0;  // ordinal
    // This rank's place in its group. Null: no tensor parallelism. Must outlive the model.
    CudaCommunicator* communicator = nullptr;
    ThreadPool* pool = nullptr;  // for loading
    // Blocks of the KV cache; 0 = what the memory that is free after a warm-up holds, at most
    // max_kv_bytes and at most what max_sequences whole contexts need.
    int32_t num_kv_blocks = 0;
    std::optional<uint64_t> max_kv_bytes;
    int32_t max_sequences = 256;         // of a step, and rows that are sampled
    int32_t max_tokens_per_pass = 4096;  // larger steps run as several passes
    bool batch_invariant = false;        // see CudaTransformer
    bool graphs = true;
    std::function<void(double)> progress;        // part of the weights that is loaded
    std::atomic<uint64_t>* heartbeat = nullptr;  // advanced per step; may be null
  };

  // FAILED_PRECONDITION: no usable device, one without the batch-invariant mode, or a library is
  // missing. RESOURCE_EXHAUSTED names what weights, activations and the KV cache take, what is
  // free, and what would fit.
  static absl::StatusOr<std::unique_ptr<CudaGptModel>> Create(const Options& options);
  ~CudaGptModel() override;

  absl::Status Check(const StepBatch& batch, size_t logits) const override;
  // Logits to the host: for scoring and tests. No step may be in flight.
  absl::Status Run(const StepBatch& batch, std::span<float> logits) override;
  const ModelConfig& config() const override { return config_; }
  const StepLimits& limits() const override { return limits_; }

  // Puts a step into the stream; it draws one token per logit row. At most kMaxInFlight steps are
  // in flight. INVALID_ARGUMENT leaves everything untouched; any other error means that the device
  // is lost.
  static constexpr int kMaxInFlight = 2;
  absl::Status Begin(const StepBatch& batch, std::span<const CudaSampleRow> samples);

  // What the oldest step in flight drew; waits for it. Valid until the next-but-one Begin.
  struct Draws {
    std::span<const int32_t> ids;  // by row
    const float* logprobs;         // by row, of rows that asked
    const int32_t* top_ids;        // [row][kSampleMaxLogprobs]
    const float* top_logprobs;
  };
  absl::StatusOr<Draws> Finish();
  int in_flight() const { return in_flight_; }

  struct Metrics {
    uint64_t memory_used = 0;  // bytes of the device, by all processes
    uint64_t memory_total = 0;
    uint64_t graph_replays = 0;
    uint64_t eager_passes = 0;
  };
  Metrics metrics() const;

  const CudaDevice& device() const { return device_; }
  const CudaStream& stream() const { return stream_; }

  // KV bytes of one block on one rank, keys and values of all layers.
  static uint64_t KvBlockBytes(const ModelConfig& config, ComputeType type, int tp_size);

 private:
  struct Graph {
    int32_t bucket;
    PassShape shape;
    CudaGraph graphs[kMaxInFlight];  // by slot: they differ in the pinned memory they use
  };
  // Pinned memory of a step's uploads and draws.
  struct Slot {
    std::vector<PinnedBuffer<std::byte>> plans;  // one per pass
    PinnedBuffer<std::byte> draws;
    CudaEvent done;
    int32_t rows = 0;
  };

  explicit CudaGptModel(const Options& options);

  absl::Status Load(const Options& options);
  absl::Status CheckMemory(const Options& options) const;
  absl::Status AllocateBuffers();
  absl::Status WarmUp();
  absl::Status AllocateKv(const Options& options);
  absl::Status CaptureGraphs();
  absl::StatusOr<CudaGraph> Capture(const PassShape& shape, Slot* slot);

  PassShape BucketShape(int32_t bucket) const;
  const Graph* FindGraph(const Pass& pass, const PassShape& shape) const;
  // The `index`-th plan buffer of the slot, of at least `bytes`.
  absl::StatusOr<std::byte*> PlanMemory(Slot* slot, size_t index, size_t bytes);
  // To the plan on the device.
  absl::Status Upload(const std::byte* from, size_t offset, size_t bytes);
  CudaTransformer::Pass OnDevice(const PassShape& shape, int32_t max_segment_tokens,
                                 bool all_rows) const;
  absl::Status BeginGraph(const Pass& pass, const Graph& graph,
                          std::span<const CudaSampleRow> samples, Slot* slot);
  absl::Status BeginEager(const std::vector<Pass>& passes, std::span<const CudaSampleRow> samples,
                          Slot* slot);
  absl::Status CountIds(const std::vector<CountedRow>& counted, const std::byte* extra);
  absl::Status Sample(const PassShape& shape, const PassView& view, const Slot& slot);
  absl::Status DownloadDraws(std::span<const CudaSampleRow> samples, Slot* slot);
  void Beat();

  ModelConfig config_;
  const ComputeType type_;
  const int32_t max_sequences_;
  const int32_t max_tokens_;
  const bool batch_invariant_;
  const bool use_graphs_;
  std::atomic<uint64_t>* const heartbeat_;
  CudaCommunicator* const communicator_;
  StepLimits limits_ = {};
  int32_t table_stride_ = 0;

  CudaDevice device_;
  CudaStream stream_;
  std::unique_ptr<CudaWeights> weights_;
  std::unique_ptr<CudaTransformer> transformer_;
  DeviceBuffer<std::byte> kv_;
  DeviceBuffer<std::byte> plan_;   // of the pass that runs
  DeviceBuffer<float> logits_;     // [max_sequences, vocabulary]
  DeviceBuffer<uint16_t> counts_;  // [max_sequences, vocabulary] of rows with penalties
  DeviceBuffer<int32_t> drawn_;    // [max_sequences] by the last step, read by the next
  DeviceBuffer<std::byte> draws_;  // log-probabilities: DrawLayout
  DeviceBuffer<float> adjusted_;   // [max_sequences, slice] of the plain sampler
  std::vector<Graph> graphs_;      // by bucket, ascending
  Slot slots_[kMaxInFlight];
  int next_slot_ = 0;
  int in_flight_ = 0;
  int32_t last_rows_ = 0;  // that the last step drew
  uint64_t steps_ = 0;
  std::atomic<uint64_t> graph_replays_ = 0;
  std::atomic<uint64_t> eager_passes_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_CUDA_CUDA_MODEL_H_
