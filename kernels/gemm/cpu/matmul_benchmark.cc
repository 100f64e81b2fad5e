// The products of one training step of the small model (width 320, vocabulary 8192) on 2048 tokens:
// GFLOP/s on two threads.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/gemm/cpu/matmul.h"

namespace hanlin {
namespace {

enum Form { kForward, kInputGradient, kWeightGradient };

// A linear layer [rows, in] -> [rows, out].
void BM_Layer(benchmark::State& state, ComputeType type, Form form, int64_t rows, int64_t in,
              int64_t out) {
  ThreadPool pool(2);
  const std::vector<float> x(rows * in, 0.5f), w(out * in, 0.5f), dy(rows * out, 0.5f);
  std::vector<float> c(std::max({rows * in, out * in, rows * out}));
  MatMulParams p = {.m = rows, .n = out, .k = in, .a = x.data(), .a_stride = in, .b = w.data()};
  p.b_stride = in;
  p.b_transposed = form == kForward;
  if (form == kInputGradient) {
    p.n = in;
    p.k = out;
    p.a = dy.data();
    p.a_stride = out;
  } else if (form == kWeightGradient) {
    p.m = out;
    p.n = in;
    p.k = rows;
    p.a = dy.data();
    p.a_stride = out;
    p.a_transposed = true;
    p.b = x.data();
    p.accumulate = true;
  }
  p.c = c.data();
  p.c_stride = p.n;
  p.type = type;
  for (auto _ : state) MatMul(p, pool);
  state.counters["GFLOP/s"] = benchmark::Counter(2.0 * rows * in * out * state.iterations() / 1e9,
                                                 benchmark::Counter::kIsRate);
}

void Register() {
  struct Layer {
    const char* name;
    int64_t rows, in, out;
  };
  for (const Layer& l : {Layer{"qkv", 2048, 320, 960}, Layer{"attn_out", 2048, 320, 320},
                         Layer{"mlp_up", 2048, 320, 1280}, Layer{"mlp_down", 2048, 1280, 320},
                         Layer{"classifier", 512, 320, 8192}}) {
    for (const auto& [type, type_name] :
         {std::pair(ComputeType::kFloat32, "fp32"), std::pair(ComputeType::kBFloat16, "bf16")}) {
      for (const auto& [form, form_name] :
           {std::pair(kForward, "forward"), std::pair(kInputGradient, "input_gradient"),
            std::pair(kWeightGradient, "weight_gradient")}) {
        const std::string name = std::string(l.name) + "/" + type_name + "/" + form_name;
        benchmark::RegisterBenchmark(name.c_str(), BM_Layer, type, form, l.rows, l.in, l.out)
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
}

[[maybe_unused]] const bool kRegistered = (Register(), true);

}  // namespace
}  // namespace hanlin
