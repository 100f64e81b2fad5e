// What the phases share: the warps of a block that compute, as one of them sees them, their walk
// over the ring of step_layout.cuh, and how blocks wait for each other.
#ifndef HANLIN_KERNELS_DECODE_STEP_CUDA_CREW_CUH_
#define HANLIN_KERNELS_DECODE_STEP_CUDA_CREW_CUH_

#include "kernels/base/cuda/ptx.cuh"
#include "kernels/decode_step/cuda/step_layout.cuh"

namespace hanlin::decode_step {

template <typename L>
class Crew {
 public:
  using Shared = typename L::Shared;

  __device__ Crew(const DecodeStepParams& params, Shared& memory, Place where)
      : p(params), shared(memory), place(where), warp(threadIdx.x / 32), lane(threadIdx.x % 32) {}

  // Starts behind the kernels before this one.
  __device__ void Begin() {
    if (warp != 0) return;
    // All blocks of the last step have arrived, so that a multiple of a step's arrivals is there,
    // and whoever is ahead in this one; this block is not.
    const uint64_t of_grid = kDecodeStepBlocks * (uint64_t{4} * p.num_layers - 1);
    const uint64_t of_head = uint64_t{kDecodeStepSplits} * p.num_layers;
    grid_ = ptx::LoadAcquire(&p.exchange->grid.value) / of_grid * of_grid;
    head_ = ptx::LoadAcquire(&p.exchange->heads[place.head].value) / of_head * of_head;
  }

  __device__ static void Synchronize() { ptx::NamedBarrier(1, L::kConsumers); }

  // By warp 0, behind its stores: waits for the blocks of the head, or for all. What the block's
  // other warps know is behind a barrier already.
  __device__ void SynchronizeHead() {
    Meet(&p.exchange->heads[place.head].value, head_ += kDecodeStepSplits);
  }
  __device__ void SynchronizeGrid() { Meet(&p.exchange->grid.value, grid_ += kDecodeStepBlocks); }

  // Which of the phase's units is this warp's first.
  __device__ int Order() const { return (warp - turn_ + L::kWarps) % L::kWarps; }

  // body(i, slot) for the units of this warp among the phase's.
  template <typename Body>
  __device__ void ForUnits(int units, Body&& body) {
    for (int i = Order(); i < units; i += L::kWarps) {
      const int slot = warp + depth_ * L::kWarps;
      ptx::BarrierWait(&shared.full[slot], parity_);
      __syncwarp();
      body(i, reinterpret_cast<const uint4*>(shared.ring[slot]));
      __syncwarp();  // every lane has read the slot
      if (lane == 0) ptx::Arrive(&shared.empty[slot]);
      if (++depth_ == L::kSlots / L::kWarps) {
        depth_ = 0;
        parity_ ^= 1;
      }
    }
  }

  // The phase had so many units.
  __device__ void Pass(int units) { turn_ = (turn_ + units) % L::kWarps; }

  const DecodeStepParams& p;
  Shared& shared;
  const Place place;
  const int warp, lane;

 private:
  __device__ void Meet(uint64_t* counter, uint64_t arrivals) const {
    __syncwarp();
    if (lane == 0) {
      ptx::CountRelease(counter);
      while (ptx::LoadAcquire(counter) < arrivals) {
      }
    }
    __syncwarp();
  }

  int turn_ = 0;   // the warp that has the phase's first unit
  int depth_ = 0;  // slot of the warp's next unit among its own
  uint32_t parity_ = 0;
  uint64_t grid_ = 0, head_ = 0;  // arrivals that warp 0 waited for
};

}  // namespace hanlin::decode_step

#endif  // HANLIN_KERNELS_DECODE_STEP_CUDA_CREW_CUH_
