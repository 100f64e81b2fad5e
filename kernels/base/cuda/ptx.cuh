// The PTX that the kernels use: barriers, copies into shared memory, clusters, registers of
// warpgroups, programmatic dependent launch. Needs sm_90, but for
// PrefetchToL2 and the last two functions, which do nothing before. A bulk copy wants 16-byte
// aligned addresses and a multiple of 16 bytes.
#ifndef HANLIN_KERNELS_BASE_CUDA_PTX_CUH_
#define HANLIN_KERNELS_BASE_CUDA_PTX_CUH_

#include <cstdint>

#include "kernels/base/cuda/l2_prefetch.h"

namespace hanlin::ptx {

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
}

// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Orders ordinary accesses to shared memory before later ones of the copy engine.
__device__ __forceinline__ void FenceProxyAsync() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Arrives and announces `bytes` of copies; the phase ends when they are all there.
__device__ __forceinline__ void ArriveExpect(uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}

__device__ __forceinline__ void BarrierWait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "wait:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra end;\n"
      "bra wait;\n"
      "end:\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// Whether the phase of that parity is over; does not wait.
__device__ __forceinline__ bool BarrierTest(uint64_t* barrier, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n"
      "}\n"
      : "=r"(over)
      : "r"(SharedAddress(barrier)), "r"(parity)
      : "memory");
  return over != 0;
}

// Copies `bytes` that are read once: they leave L2 first.
__device__ __forceinline__ void BulkCopyStreaming(void* shared, const void* global, uint32_t bytes,
                                                  uint64_t* barrier) {
  asm volatile(
      "{\n"
      ".reg .b64 policy;\n"
      "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], policy;\n"
      "}\n" ::"r"(SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}

// Brings this block's part, of `parts`, of what is wanted into L2: the beginning of its slice of
// the data. By one warp.
__device__ __forceinline__ void PrefetchToL2(const L2Prefetch& wanted, int64_t part,
                                             int64_t parts) {
#if __CUDA_ARCH__ >= 900
  constexpr int64_t kUnit = 16, kPiece = 4096;
  if (wanted.data == nullptr) return;
  const int64_t units = wanted.bytes / kUnit;
  const int64_t begin = units * part / parts * kUnit, end = units * (part + 1) / parts * kUnit;
  const int64_t bytes = min(end - begin, wanted.ahead / parts / kUnit * kUnit);
  for (int64_t at = threadIdx.x % 32 * kPiece; at < bytes; at += 32 * kPiece) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;\n" ::"l"(
                     static_cast<const uint8_t*>(wanted.data) + begin + at),
                 "r"(static_cast<uint32_t>(min(kPiece, bytes - at)))
                 : "memory");
  }
#endif
}

// Brings `bytes` into L2.
__device__ __forceinline__ void BulkPrefetchToL2(const void* global, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory");
}

// Loads of constants where the program says, not where the compiler likes them.
__device__ __forceinline__ float LoadConstant(const float* from) {
  float v;
  asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(v) : "l"(from));
  return v;
}
__device__ __forceinline__ float4 LoadConstant(const float4* from) {
  float4 v;
  asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(from));
  return v;
}

// Adds one to a counter in global memory, behind everything that this thread wrote or saw before.
__device__ __forceinline__ void CountRelease(uint64_t* counter) {
  asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(counter) : "memory");
}
// Reads it, before everything that follows.
__device__ __forceinline__ uint64_t LoadAcquire(const uint64_t* counter) {
  uint64_t value;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(counter) : "memory");
  return value;
}

// sum += A B^T of bf16, A 16 x 16 in a, B 8 x 16 in b, as mma.m16n8k16 lays them out.
__device__ __forceinline__ void MultiplyBFloat16(float (&sum)[4], uint32_t a0, uint32_t a1,
                                                 uint32_t a2, uint32_t a3, uint32_t b0,
                                                 uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Address of `shared` of this block in the block `rank` of its cluster.
__device__ __forceinline__ uint32_t ClusterAddress(const void* shared, uint32_t rank) {
  uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(SharedAddress(shared)), "r"(rank));
  return address;
}

// Reads a block's shared memory at ClusterAddress's address.
__device__ __forceinline__ float4 LoadFromCluster(uint32_t address) {
  float4 v;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address));
  return v;
}

// Stores into the shared memory of a block of the cluster (an illegal instruction in a kernel that
// was launched without one) and counts the bytes on its barrier
// (addresses of ClusterAddress); whoever waits for the barrier sees the values.
__device__ __forceinline__ void StoreAsync(uint32_t address, float4 value, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(address),
      "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void StoreAsync(uint32_t address, float2 value, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::
          "r"(address),
      "f"(value.x), "f"(value.y), "r"(barrier)
      : "memory");
}

__device__ __forceinline__ void StoreAsync(uint32_t address, float value, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(
          address),
      "f"(value), "r"(barrier)
      : "memory");
}

// Waits for what other blocks of the cluster store with StoreAsync.
__device__ __forceinline__ void ClusterBarrierWait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "wait:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra end;\n"
      "bra wait;\n"
      "end:\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// Every thread of every block of the cluster arrives, then waits.
__device__ __forceinline__ void ClusterArrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
// Shows the other blocks no more than the barriers ahead of FenceBarrierInit; waits for no store.
__device__ __forceinline__ void ClusterArriveRelaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void ClusterWait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}

// Copies 16 bytes of global memory, or fills them with zeros, behind the thread's back.
__device__ __forceinline__ void CopyOrZero(uint32_t shared, const void* global, bool copies) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(copies ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for all but the last kPending groups of this thread's copies and shows what they wrote to
// the tensor cores.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;\nfence.proxy.async.shared::cta;" ::"n"(kPending)
               : "memory");
}

// Barrier `id` (from 1; 0 is __syncthreads) of so many threads, whole warps.
__device__ __forceinline__ void NamedBarrier(int id, int threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// The whole warpgroup gives registers back, or waits until it has so many a thread.
template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// A value that is the same in all lanes of a warp, as the compiler cannot know: with it, loops and
// descriptors go to the registers that a warp has once.
__device__ __forceinline__ int Uniform(int value) { return __shfl_sync(0xffffffffu, value, 0); }

// 2^x, about 2 ulp.
__device__ __forceinline__ float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// How long what a copy reads stays in L2.
__device__ __forceinline__ uint64_t EvictFirstPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t EvictNormalPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_unchanged.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Fetches the map itself, so that its first copy does not wait for it.
__device__ __forceinline__ void PrefetchMap(const void* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Copies the box at (column, row) of a matrix whose tensor map (CUtensorMap, a kernel parameter) is
// `map`; what lies outside of the matrix becomes zero. The whole box counts on the barrier.
__device__ __forceinline__ void TensorCopy(void* shared, const void* map, int column, int row,
                                           uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(column), "r"(row), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

// The same from one matrix of several, whose map has three dimensions.
__device__ __forceinline__ void TensorCopy(void* shared, const void* map, int column, int row,
                                           int matrix, uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(column), "r"(row), "r"(matrix), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

// Waits until the kernels before this one in the stream are complete. What runs ahead of it may
// touch only memory that those kernels do not write.
__device__ __forceinline__ void WaitForPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel of the stream start.
__device__ __forceinline__ void StartNext() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace hanlin::ptx

#endif  // HANLIN_KERNELS_BASE_CUDA_PTX_CUH_
