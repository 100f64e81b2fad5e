// Marks functions of headers that .cc and .cu files share.
#ifndef HANLIN_KERNELS_BASE_CUDA_HOST_DEVICE_H_
#define HANLIN_KERNELS_BASE_CUDA_HOST_DEVICE_H_

#ifdef __CUDACC__
#define HANLIN_HOST_DEVICE __host__ __device__
#else
#define HANLIN_HOST_DEVICE
#endif

#endif  // HANLIN_KERNELS_BASE_CUDA_HOST_DEVICE_H_
