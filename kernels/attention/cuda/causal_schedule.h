// Which thread block of causal attention serves which block of rows (queries, or keys) of which
// head of which sequence, and when. Causality makes one end of a sequence dear and the other cheap.
// Pairs from both ends all cost the same: most come in that way, heads first, which share a
// sequence in L2, in full rounds of the thread blocks. What is left, some rounds more, comes in
// single blocks, dear ones first, from the first thread block to the last and back, so that all end
// at about the same time. Where the blocks cover more than the sequence, what is missing goes to
// the cheap end: queries begin before it.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_SCHEDULE_H_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_SCHEDULE_H_

#include "kernels/base/cuda/host_device.h"

namespace hanlin {

// The blocks of rows of a launch.
struct CausalWork {
  int rows;         // of a block
  int before;       // the sequence, where the first block begins
  bool last_first;  // whether a sequence's last block is the dear one
  int heads, sequences;
  int blocks;      // of a sequence
  int rounds = 0;  // of pairs
  // From a thread block's pair to its next one, and what all rounds serve: pairs of so many heads
  // of a sequence, of all heads of so many pairs before, and all of so many sequences.
  int head_step = 0, pair_step = 0, sequence_step = 0;
  int done_heads = 0, done_pairs = 0, done_sequences = 0;

  int pairs() const { return sequences * heads * (blocks / 2); }
  int count() const { return sequences * heads * blocks; }

  static CausalWork Make(int length, int rows, bool of_queries, int heads, int sequences,
                         int thread_blocks) {
    const int blocks = (length + rows - 1) / rows;
    const int before = of_queries ? blocks * rows - (length + 63) / 64 * 64 : 0;
    CausalWork work = {rows, before, of_queries, heads, sequences, blocks};
    if (work.pairs() < 2 * thread_blocks) return work;
    work.rounds = work.pairs() / thread_blocks - 1;
    const int pairs = blocks / 2, done = work.rounds * thread_blocks;
    work.head_step = thread_blocks % heads;
    work.pair_step = thread_blocks / heads % pairs;
    work.sequence_step = thread_blocks / heads / pairs;
    work.done_heads = done % heads;
    work.done_pairs = done / heads % pairs;
    work.done_sequences = done / heads / pairs;
    return work;
  }
};

// The blocks of rows of one thread block, one after the other.
class Schedule {
 public:
#ifdef __CUDACC__
  // Of this thread block; `work` is a parameter of the kernel.
  __device__ explicit Schedule(const CausalWork& work) : Schedule(work, blockIdx.x, gridDim.x) {}
#endif
  HANLIN_HOST_DEVICE Schedule(const CausalWork& work, int thread_block, int thread_blocks)
      : work_(work), thread_block_(thread_block), thread_blocks_(thread_blocks) {
    if (work.rounds == 0) return;
    head = thread_block % work.heads;
    pair_ = thread_block / work.heads % (work.blocks / 2);
    sequence = thread_block / work.heads / (work.blocks / 2);
  }

  // Moves on to the next block of rows, to begin with to the first; false behind the last.
  HANLIN_HOST_DEVICE bool Next() {
    const int step = step_++;
    if (step >= 2 * work_.rounds) return NextSingle(step - 2 * work_.rounds);
    if (step % 2 == 0 && step > 0) StepToPair();
    first = (step % 2 == 0 ? pair_ : work_.blocks - 1 - pair_) * work_.rows - work_.before;
    return true;
  }

  int head = 0, sequence = 0;
  int first = 0;  // position of the first row, before the sequence where it is negative

 private:
  // Without divisions, for which all threads would wait.
  HANLIN_HOST_DEVICE void StepToPair() {
    head += work_.head_step;
    pair_ += work_.pair_step;
    sequence += work_.sequence_step;
    if (head >= work_.heads) {
      head -= work_.heads;
      ++pair_;
    }
    if (pair_ >= work_.blocks / 2) {
      pair_ -= work_.blocks / 2;
      ++sequence;
    }
  }

  HANLIN_HOST_DEVICE bool NextSingle(int round) {
    const bool back = round % 2 != 0;
    int item = round * thread_blocks_ + (back ? thread_blocks_ - 1 - thread_block_ : thread_block_);
    for (int rank = 0; rank < work_.blocks; ++rank) {
      const int block = work_.last_first ? work_.blocks - 1 - rank : rank;
      const int other = work_.blocks - 1 - block, pair = block < other ? block : other;
      int served = 0;  // of the heads of all sequences
      if (block != other) {
        served = work_.done_sequences * work_.heads;
        served += pair < work_.done_pairs    ? work_.heads
                  : pair == work_.done_pairs ? work_.done_heads
                                             : 0;
      }
      const int left = work_.sequences * work_.heads - served;
      if (item < left) {
        sequence = (item + served) / work_.heads;
        head = item + served - sequence * work_.heads;
        first = block * work_.rows - work_.before;
        return true;
      }
      item -= left;
    }
    return false;
  }

  const CausalWork& work_;
  int thread_block_, thread_blocks_;
  int step_ = 0, pair_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_SCHEDULE_H_
