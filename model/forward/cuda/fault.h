// A fault on purpose, for tests of what happens then: HANLIN_FAILPOINT_CUDA_FAULT=N in the
// environment makes step N (from 1) of a model write where there is no memory. N:FILE does so only
// if FILE exists, and removes it: the process that is started next does not fault again.
#ifndef HANLIN_MODEL_FORWARD_CUDA_FAULT_H_
#define HANLIN_MODEL_FORWARD_CUDA_FAULT_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace hanlin {

// Whether `step` is the one.
bool IsFaultStep(uint64_t step);
// A kernel that faults.
cudaError_t LaunchFault(cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_CUDA_FAULT_H_
