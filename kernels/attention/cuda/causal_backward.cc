// Causal attention's backward pass on the tensor cores, in two kernels, so that nothing is added by
// two blocks.
#include "kernels/attention/cuda/causal_attention_params.h"

namespace hanlin {

cudaError_t LaunchCausalAttentionBackward(const CudaCausalAttentionParams& params,
                                          const CudaCausalAttentionGradients& gradients,
                                          const CausalAttentionState& state, cudaStream_t stream) {
  const cudaError_t error = LaunchQueryGradient(params, gradients, state, stream);
  return error == cudaSuccess ? LaunchKeyGradient(params, gradients, state, stream) : error;
}

}  // namespace hanlin
