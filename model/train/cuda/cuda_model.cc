// Memory, batches and passes of cuda_model.h.
#include "model/train/cuda/cuda_model.h"

#include <algorithm>
#include <utility>

#include "kernels/elementwise/cuda/elementwise.h"
#include "kernels/embed/cuda/embed_train.h"
#include "kernels/gemm/cuda/peak.h"
#include "kernels/optim/cuda/adamw_params.h"
#include "model/comm/nccl/nccl_communicator.h"
#include "model/train/cuda/memory.h"

namespace hanlin {
namespace {

// Classified rows come in multiples of this: every number of rows costs its products' plans.
constexpr int64_t kRowStep = 64;

// The ranks of `group` on the device, for `*device` where it is null.
absl::StatusOr<std::unique_ptr<CudaCommunicator>> JoinOnDevice(Communicator* group,
                                                               const CudaTrainOptions& cuda,
                                                               CudaCommunicator** device) {
  if (group == nullptr || group->size() == 1 || *device != nullptr) return nullptr;
  ASSIGN_OR_RETURN(
      auto joined,
      MakeNcclCommunicator({.device = cuda.device, .group = group, .timeout = cuda.timeout}));
  *device = joined.get();
  return joined;
}

absl::Status CheckGroup(const char* name, const Communicator* group,
                        const CudaCommunicator* device) {
  const int size = group == nullptr ? 1 : group->size();
  if (size == 1) return absl::OkStatus();
  if (device == nullptr || device->size() != size || device->rank() != group->rank()) {
    return InvalidArgument("the {} group of {} ranks has no counterpart on the device", name, size);
  }
  return absl::OkStatus();
}

// Where in a batch's bytes the arrays begin that the forward pass does not read.
size_t TargetsBegin(const CudaBatch& batch) {
  return reinterpret_cast<const std::byte*>(batch.rows) -
         reinterpret_cast<const std::byte*>(batch.tokens);
}

}  // namespace

CudaTrainModel::CudaTrainModel(const TrainModelOptions& options, const CudaTrainOptions& cuda)
    : options_(options),
      cuda_(cuda),
      config_(options_.config),
      type_(cuda.type),
      layout_(options_.config, tp_size()) {}

absl::StatusOr<std::unique_ptr<CudaTrainModel>> CudaTrainModel::Create(
    const TrainModelOptions& options, const CudaTrainOptions& cuda) {
  const ModelConfig& config = options.config;
  const int tp_size = options.tensor == nullptr ? 1 : options.tensor->size();
  RETURN_IF_ERROR(CheckTp(config, tp_size));
  if (config.head_dim % 8 != 0 || config.head_dim > 128 || config.ffn_size / tp_size % 8 != 0) {
    return Unimplemented(
        "training on a GPU wants heads of a multiple of 8 up to 128 and an MLP of a multiple of 8 "
        "on each rank, not {} and {}",
        config.head_dim, config.ffn_size / tp_size);
  }
  ASSIGN_OR_RETURN(CudaDevice device, OpenCudaDevice(cuda.device));
  if (!device.hopper) {
    return FailedPrecondition("training wants a GPU of compute capability 9.0, {} has {}.{}",
                              device.name, device.major, device.minor);
  }
  CudaTrainOptions joined = cuda;
  ASSIGN_OR_RETURN(auto tensor, JoinOnDevice(options.tensor, cuda, &joined.tensor));
  ASSIGN_OR_RETURN(auto data, JoinOnDevice(options.data, cuda, &joined.data));
  RETURN_IF_ERROR(CheckGroup("tensor-parallel", options.tensor, joined.tensor));
  RETURN_IF_ERROR(CheckGroup("data-parallel", options.data, joined.data));
  std::unique_ptr<CudaTrainModel> model(new CudaTrainModel(options, joined));
  model->device_ = std::move(device);
  model->tensor_group_ = std::move(tensor);
  model->data_group_ = std::move(data);
  ASSIGN_OR_RETURN(model->stream_, CudaStream::Create());
  ASSIGN_OR_RETURN(model->sums_stream_, CudaStream::Create());
  ASSIGN_OR_RETURN(model->copies_stream_, CudaStream::Create());
  ASSIGN_OR_RETURN(model->join_, CudaEvent::Create());
  ASSIGN_OR_RETURN(model->losses_ready_, CudaEvent::Create());
  RETURN_IF_ERROR(model->Allocate());
  return model;
}

absl::Status CudaTrainModel::Allocate() {
  ASSIGN_OR_RETURN(products_, CudaTrainProducts::Create());
  ASSIGN_OR_RETURN(parameters_, CudaParameters::Create(layout_, type_));
  const Range owned = OwnedRange();
  ASSIGN_OR_RETURN(gradients_, DeviceBuffer<float>::Create(layout_.size()));
  ASSIGN_OR_RETURN(moment1_, DeviceBuffer<float>::Create(owned.end - owned.begin));
  ASSIGN_OR_RETURN(moment2_, DeviceBuffer<float>::Create(owned.end - owned.begin));
  ASSIGN_OR_RETURN(squares_, DeviceBuffer<double>::Create(kSquareParts + 2));
  ASSIGN_OR_RETURN(sums_, PinnedBuffer<double>::Create(2));
  RETURN_IF_ERROR(gradients_.Clear());
  unwritten_.assign(layout_.slots().size(), false);
  RETURN_IF_ERROR(moment1_.Clear());
  RETURN_IF_ERROR(moment2_.Clear());
  // The clears went into the default stream, for which ours does not wait.
  return CudaStatus(cudaDeviceSynchronize(), "clearing of the flat arrays");
}

uint64_t CudaTrainModel::ActivationBytes(Recompute recompute, int64_t sequences,
                                         int64_t length) const {
  TrainModelOptions options = options_;
  options.recompute = recompute;
  return CudaActivations(options, type_, sequences, length, /*keep=*/true, nullptr).bytes();
}

absl::Status CudaTrainModel::Prepare(int64_t sequences, int64_t length, bool keep) {
  const size_t wanted = CudaActivations(options_, type_, sequences, length, keep, nullptr).bytes();
  const size_t tokens = sequences * length;
  if (wanted > memory_.size()) {
    RETURN_IF_ERROR(stream_.Synchronize());
    memory_ = DeviceBuffer<std::byte>();  // before the new one, not beside it
    ASSIGN_OR_RETURN(memory_, DeviceBuffer<std::byte>::Create(wanted));
  }
  if (CudaBatchBytes(tokens) > uploads_.size()) {
    ASSIGN_OR_RETURN(uploads_, PinnedBuffer<std::byte>::Create(CudaBatchBytes(tokens)));
  }
  if (tokens > downloads_.size()) {
    ASSIGN_OR_RETURN(downloads_, PinnedBuffer<float>::Create(tokens));
  }
  activations_ = CudaActivations(options_, type_, sequences, length, keep, memory_.data());
  return absl::OkStatus();
}

absl::Status CudaTrainModel::CopyUp(size_t begin, size_t end, const CudaStream& stream) {
  return CudaStatus(cudaMemcpyAsync(activations_.batch + begin, uploads_.data() + begin,
                                    end - begin, cudaMemcpyHostToDevice, stream.get()),
                    "copy of a batch");
}

absl::StatusOr<CudaTrainModel::Pass> CudaTrainModel::UploadInputs(const TrainBatch& batch,
                                                                  bool training, uint32_t step) {
  RETURN_IF_ERROR(CheckBatch(config_, batch));
  RETURN_IF_ERROR(Prepare(batch.sequences, batch.length, training));
  const int64_t tokens = batch.sequences * batch.length;
  const Pass pass = {.batch = &batch,
                     .tokens = tokens,
                     .training = training,
                     .step = step,
                     .arrays = CudaBatchAt(activations_.batch, tokens)};
  const CudaBatch to = CudaBatchAt(uploads_.data(), tokens);
  std::copy(batch.tokens.begin(), batch.tokens.end(), to.tokens);
  std::copy(batch.positions.begin(), batch.positions.end(), to.positions);
  std::copy(batch.document_begin.begin(), batch.document_begin.end(), to.document_begin);
  RETURN_IF_ERROR(CopyUp(0, TargetsBegin(to), stream_));
  // The targets of the batch before have been read when the work up to here is done.
  RETURN_IF_ERROR(Join(stream_, copies_stream_));
  return pass;
}

absl::Status CudaTrainModel::UploadTargets(bool all, Pass& pass) {
  pass.all = all;
  const TrainBatch& batch = *pass.batch;
  const CudaBatch to = CudaBatchAt(uploads_.data(), pass.tokens);
  const int64_t counted = pass.tokens - std::count(batch.weights.begin(), batch.weights.end(), 0);
  // Masked rows that fill the last step. Their weight is 0 and so is their gradient.
  int64_t fill = all ? 0 : -counted & (kRowStep - 1);
  for (int64_t t = 0; t < pass.tokens; ++t) {
    const bool counts = all || batch.weights[t] != 0;
    const bool classified = counts || fill > 0;
    if (!counts) --fill;
    to.place[t] = classified ? static_cast<int32_t>(pass.classified) : -1;
    if (!classified) continue;
    to.rows[pass.classified] = static_cast<int32_t>(t);
    to.labels[pass.classified] = counts ? batch.labels[t] : 0;
    to.weights[pass.classified] = batch.weights[t];
    ++pass.classified;
  }
  if (pass.training) {
    OrderRows(batch.tokens, config_.vocab_size, to.token_order);
    OrderRows(batch.positions, config_.max_positions, to.position_order);
  }
  RETURN_IF_ERROR(CopyUp(TargetsBegin(to), CudaBatchBytes(pass.tokens), copies_stream_));
  return Join(copies_stream_, stream_);
}

absl::Status CudaTrainModel::StartDownload(const Pass& pass) {
  RETURN_IF_ERROR(Join(stream_, copies_stream_));
  if (pass.classified > 0) {
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(downloads_.data(), activations_.losses,
                                         pass.classified * sizeof(float), cudaMemcpyDeviceToHost,
                                         copies_stream_.get()));
  }
  return losses_ready_.Record(copies_stream_);
}

absl::Status CudaTrainModel::Download(const Pass& pass, std::span<float> losses) {
  std::fill(losses.begin(), losses.end(), 0.0f);
  for (CudaCommunicator* const group : {cuda_.tensor, cuda_.data}) {
    if (group != nullptr) RETURN_IF_ERROR(group->Watch(stream_));
  }
  RETURN_IF_ERROR(losses_ready_.Wait());
  RETURN_IF_ERROR(CheckGroups());
  const CudaBatch from = CudaBatchAt(uploads_.data(), pass.tokens);
  for (int64_t i = 0; i < pass.classified; ++i) {
    if (pass.all || from.weights[i] != 0) losses[from.rows[i]] = downloads_.data()[i];
  }
  return absl::OkStatus();
}

absl::Status CudaTrainModel::Evaluate(const TrainBatch& batch, bool all, std::span<float> losses) {
  ASSIGN_OR_RETURN(Pass pass, UploadInputs(batch, /*training=*/false, 0));
  RETURN_IF_ERROR(Forward(pass));
  RETURN_IF_ERROR(UploadTargets(all, pass));
  RETURN_IF_ERROR(Classify(pass, nullptr));
  RETURN_IF_ERROR(StartDownload(pass));
  return Download(pass, losses);
}

absl::Status CudaTrainModel::ForwardBackward(const TrainBatch& batch, uint32_t step,
                                             std::span<float> losses) {
  if (reduced_ > 0) return Internal("a micro-batch after the last one, want ReduceGradients");
  ASSIGN_OR_RETURN(Pass pass, UploadInputs(batch, /*training=*/true, step));
  pass.reduces = std::exchange(reduce_in_next_, false);
  RETURN_IF_ERROR(Forward(pass));
  RETURN_IF_ERROR(UploadTargets(/*all=*/false, pass));
  std::byte* const dx = activations_.hidden[2];
  RETURN_IF_CUDA_ERROR(
      cudaMemsetAsync(dx, 0, pass.tokens * config_.hidden_size * SizeOf(type_), stream_.get()));
  RETURN_IF_ERROR(Classify(pass, dx));
  RETURN_IF_ERROR(StartDownload(pass));
  RETURN_IF_ERROR(Backward(pass, dx));
  return Download(pass, losses);
}

DropoutParams CudaTrainModel::Dropout(const Pass& pass, float rate, uint32_t site) const {
  return {pass.training ? rate : 0, options_.seed, pass.step, site, pass.batch->first_row};
}

absl::Status CudaTrainModel::AllReduce(int64_t rows, std::byte* data) {
  if (tp_size() == 1) return absl::OkStatus();
  const int64_t count = rows * config_.hidden_size;
  if (type_ == ComputeType::kFloat32) {
    return cuda_.tensor->AllReduceSum(reinterpret_cast<float*>(data), count, stream_);
  }
  RETURN_IF_ERROR(CudaWiden(data, count, activations_.sums, stream_.get()));
  RETURN_IF_ERROR(cuda_.tensor->AllReduceSum(activations_.sums, count, stream_));
  return CudaNarrow(activations_.sums, count, data, stream_.get());
}

absl::StatusOr<std::unique_ptr<TrainModel>> MakeCudaTrainModel(const TrainModelOptions& options,
                                                               const CudaTrainOptions& cuda) {
  return CudaTrainModel::Create(options, cuda);
}

absl::StatusOr<double> MeasureCudaPeak(const CudaTrainOptions& cuda) {
  ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(cuda.device));
  ASSIGN_OR_RETURN(const CudaStream stream, CudaStream::Create());
  return MeasurePeakFlops(cuda.type, device, stream);
}

}  // namespace hanlin
