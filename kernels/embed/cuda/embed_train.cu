// See embed_train.h. Forward: a thread takes sixteen bytes. Backward: a warp takes the rows of one
// id and 32 packs of columns.
#include "kernels/base/cuda/packed.cuh"
#include "kernels/embed/cuda/embed_train_params.h"

namespace hanlin {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) EmbedTrainKernel(const CudaEmbedTrainParams p) {
  constexpr int kSize = kPacked<T>;
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kSize;
  if (at >= p.rows * p.width) return;
  const int64_t row = at / p.width, column = at - row * p.width;
  const int64_t id = p.ids[row] - p.vocabulary_begin;
  float values[kSize] = {};
  if (id >= 0 && id < p.vocabulary_size) {
    LoadPacked(static_cast<const T*>(p.table) + id * p.width + column, values);
  }
  if (p.position_table != nullptr) {
    float position[kSize];
    LoadPacked(p.position_table + p.positions[row] * p.width + column, position);
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[i] += position[i];
  }
  StorePacked(static_cast<T*>(p.out) + at, values);
}

// The warp at the first place of an id in `order` takes all its rows; the others have nothing to
// do.
template <typename T>
__global__ void __launch_bounds__(kThreads) EmbedBackwardKernel(const CudaEmbedBackwardParams p) {
  constexpr int kSize = kPacked<T>;
  constexpr int kAhead = 8;  // rows whose loads are in flight
  const int64_t first = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  const int64_t column = (int64_t{blockIdx.y} * 32 + threadIdx.x % 32) * kSize;
  if (first >= p.rows || column >= p.width) return;
  const int32_t id = p.ids[p.order[first]];
  if (first > 0 && p.ids[p.order[first - 1]] == id) return;
  if (id < p.begin || id >= p.begin + p.size) return;
  float sums[kSize] = {};
  bool more = true;
  for (int64_t at = first; more; at += kAhead) {
    float values[kAhead][kSize] = {};
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (at + i >= p.rows) continue;
      const int64_t row = p.order[at + i];
      if (p.ids[row] == id) {
        LoadPacked(static_cast<const T*>(p.dout) + row * p.width + column, values[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
#pragma unroll
      for (int c = 0; c < kSize; ++c) sums[c] += values[i][c];
    }
    more = at + kAhead < p.rows && p.ids[p.order[at + kAhead]] == id;
  }
  float* const to = p.dtable + (id - p.begin) * p.width + column;
  float old[kSize];
  LoadPacked(to, old);
#pragma unroll
  for (int c = 0; c < kSize; ++c) sums[c] += old[c];
  StorePacked(to, sums);
}

template <typename T>
void Forward(const CudaEmbedTrainParams& p, cudaStream_t stream) {
  const int64_t packs = p.rows * p.width / kPacked<T>;
  EmbedTrainKernel<T>
      <<<static_cast<unsigned>((packs + kThreads - 1) / kThreads), kThreads, 0, stream>>>(p);
}

template <typename T>
void Backward(const CudaEmbedBackwardParams& p, cudaStream_t stream) {
  constexpr int kColumns = 32 * kPacked<T>;
  const dim3 grid(static_cast<unsigned>((p.rows + kThreads / 32 - 1) / (kThreads / 32)),
                  static_cast<unsigned>((p.width + kColumns - 1) / kColumns));
  EmbedBackwardKernel<T><<<grid, kThreads, 0, stream>>>(p);
}

}  // namespace

cudaError_t LaunchEmbedTrain(const CudaEmbedTrainParams& params, cudaStream_t stream) {
  if (params.type == ComputeType::kFloat32) {
    Forward<float>(params, stream);
  } else {
    Forward<__nv_bfloat16>(params, stream);
  }
  return cudaGetLastError();
}

cudaError_t LaunchEmbedBackward(const CudaEmbedBackwardParams& params, cudaStream_t stream) {
  if (params.type == ComputeType::kFloat32) {
    Backward<float>(params, stream);
  } else {
    Backward<__nv_bfloat16>(params, stream);
  }
  return cudaGetLastError();
}

}  // namespace hanlin
