// The micro-kernels of the linear layer, compiled once per instruction set.
//
// A tile keeps R rows x P panels (of 16 outputs) in registers and walks k; each accumulator is one
// chain of fma (or vdpbf16ps) in ascending k, for every R and P alike, which is what makes results
// independent of the batch. With many rows, k is cut into blocks whose weights fit in the L1 cache;
// accumulators are then parked in memory as fp32 between blocks, which changes no bit.
#include "kernels/base/simd.h"
#include "kernels/base/simd_math.h"
#include "kernels/gemm/cpu/linear_kernels.h"
#include "kernels/gemm/cpu/step.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

constexpr int kPanel = 16;           // outputs per panel, one lane each
constexpr int64_t kBlockSteps = 96;  // 64 bytes of weights per step and panel: 24 KiB for 4 panels
constexpr int64_t kBlockRows = 192;  // rows whose accumulators are parked at once
constexpr int kMaxPanels = 4;
constexpr int64_t kPrefetchSteps =
    24;  // 1.5 KiB ahead, for rows that stream weights from memory once

// The part of a task that one call of a tile works on.
struct TileArgs {
  const LinearTask* task;
  int64_t row;         // first row
  int64_t panel;       // first panel
  int64_t step_begin;  // in steps of k
  int64_t step_end;
  bool last;      // step_end is the end of k
  float* parked;  // [R][P][16] accumulators between blocks of k
};

HANLIN_KERNEL_INLINE F Activate(Activation activation, F x) {
  switch (activation) {
    case Activation::kGeluTanh:
      return GeluTanh(x);
    case Activation::kGeluErf:
      return GeluErf(x);
    case Activation::kNone:
      break;
  }
  return x;
}

// Bias, activation, residual and the store of one row of one panel; the last panel may hold fewer
// than 16 outputs.
__attribute__((noinline)) void Finish(const LinearTask& task, int64_t row, int64_t panel, F sum) {
  const LinearParams& params = task.params;
  const int64_t column = panel * kPanel;
  const int valid = task.n - column < kPanel ? static_cast<int>(task.n - column) : kPanel;
  const auto load = [valid](const float* p) HANLIN_LAMBDA_INLINE {
    return valid == kPanel ? Load(p) : LoadFirst(p, valid);
  };
  if (params.bias != nullptr) sum = Add(sum, load(params.bias + column));
  sum = Activate(params.activation, sum);
  if (params.residual != nullptr) {
    sum = Add(sum, load(params.residual + row * params.residual_stride + column));
  }
  const auto store = [&](auto* y) HANLIN_LAMBDA_INLINE {
    y += row * params.y_stride + column;
    if (valid == kPanel) {
      Store(y, sum);
    } else {
      StoreFirst(y, sum, valid);
    }
  };
  if (params.y_type == ComputeType::kFloat32) {
    store(static_cast<float*>(params.y));
  } else {
    store(static_cast<BFloat16*>(params.y));
  }
}

template <typename T, int R, int P>
void Tile(const TileArgs& args) {
  using S = Step<T>;
  const LinearTask& task = *args.task;
  const int64_t steps = (task.k + S::kK - 1) / S::kK;
  const int64_t panel_elements = steps * S::kK * kPanel;
  const T* weights = static_cast<const T*>(task.weights) + args.panel * panel_elements;
  const T* x = static_cast<const T*>(task.params.x) + args.row * task.params.x_stride;
  const int64_t x_stride = task.params.x_stride;

  F acc[R][P];
  for (int r = 0; r < R; ++r) {
    for (int p = 0; p < P; ++p) {
      acc[r][p] = args.step_begin == 0 ? Zero() : Load(args.parked + (r * P + p) * kPanel);
    }
  }
  const auto step = [&](int64_t s, bool half) HANLIN_LAMBDA_INLINE {
    typename S::Operand w[P];
    for (int p = 0; p < P; ++p) {
      const T* address = weights + p * panel_elements + s * S::kK * kPanel;
      if (R == 1) Prefetch(address + kPrefetchSteps * S::kK * kPanel);
      w[p] = S::Weights(address);
    }
    for (int r = 0; r < R; ++r) {
      const T* address = x + r * x_stride + s * S::kK;
      const typename S::Operand value = half ? S::BroadcastLast(address) : S::Broadcast(address);
      for (int p = 0; p < P; ++p) acc[r][p] = S::Dot(w[p], value, acc[r][p]);
    }
  };
  const bool ends_in_half = args.last && task.k % S::kK != 0;
  const int64_t whole_end = ends_in_half ? args.step_end - 1 : args.step_end;
  for (int64_t s = args.step_begin; s < whole_end; ++s) step(s, false);
  if (ends_in_half) step(whole_end, true);

  for (int r = 0; r < R; ++r) {
    for (int p = 0; p < P; ++p) {
      if (args.last) {
        Finish(task, args.row + r, args.panel + p, acc[r][p]);
      } else {
        Store(args.parked + (r * P + p) * kPanel, acc[r][p]);
      }
    }
  }
}

using TileFunction = void (*)(const TileArgs& args);

template <typename T, int P>
TileFunction TileOfRows(int64_t rows) {
  static constexpr TileFunction kTiles[] = {Tile<T, 1, P>, Tile<T, 2, P>, Tile<T, 3, P>,
                                            Tile<T, 4, P>, Tile<T, 5, P>, Tile<T, 6, P>};
  return kTiles[rows - 1];
}

// Rows [0, m) of `P` panels: blocks of rows, in them blocks of k, in them tiles of about equal
// height.
template <typename T, int P>
void Panels(const LinearTask& task, int64_t panel) {
  const int64_t steps = (task.k + Step<T>::kK - 1) / Step<T>::kK;
  alignas(64) float parked[kBlockRows * kMaxPanels * kPanel];
  for (int64_t block = 0; block < task.params.m; block += kBlockRows) {
    const int64_t rows = task.params.m - block < kBlockRows ? task.params.m - block : kBlockRows;
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
    const int64_t block_steps = tiles == 1 ? steps : kBlockSteps;
    for (int64_t begin = 0; begin < steps; begin += block_steps) {
      const int64_t end = begin + block_steps < steps ? begin + block_steps : steps;
      int64_t row = 0;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t tile_rows = rows / tiles + (t < rows % tiles ? 1 : 0);
        TileOfRows<T, P>(tile_rows)(
            {&task, block + row, panel, begin, end, end == steps, parked + row * P * kPanel});
        row += tile_rows;
      }
    }
  }
}

template <typename T>
void Run(const LinearTask& task) {
  const int widest = task.params.m == 1 ? kGemvPanels : kTilePanels;
  for (int64_t panel = task.panel_begin; panel < task.panel_end;) {
    const int64_t left = task.panel_end - panel;
    if (widest >= 4 && left >= 4) {
      Panels<T, 4>(task, panel);
      panel += 4;
    } else if (widest >= 2 && left >= 2) {
      Panels<T, 2>(task, panel);
      panel += 2;
    } else {
      Panels<T, 1>(task, panel);
      panel += 1;
    }
  }
}

}  // namespace

extern const LinearKernels kLinearKernels = {Run<float>, Run<BFloat16>};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
