// Which thread block of causal attention serves which block of rows (queries, or keys) of which
// head of which sequence, and when. Causality makes one end of a sequence dear and the other cheap.
// Pairs from both ends all cost the same: most come in that way, heads first, which share a
// sequence in L2, in full rounds of the thread blocks. What is left, some rounds more, comes in
// single blocks, dear ones first, from the first thread block to the last and back, so that all end
// at about the same time. Where the blocks cover more than the sequence, what is missing goes to
// the cheap end: queries begin before it.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_SCHEDULE_H_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_SCHEDULE_H_

#ifdef __CUDACC__
#define HANLIN_HOST_DEVICE __host__ __device__
#else
#define HANLIN_HOST_DEVICE
#endif

namespace hanlin {

// The blocks of rows of a launch.
struct CausalWork {
  int rows;         // of a block
  int before;       // the sequence, where the first block begins
  bool last_first;  // whether a sequence's last block is the dear one
  int heads, sequences;
  int blocks;  // of a sequence
  int rounds;  // of pairs

  int pairs() const { return sequences * heads * (blocks / 2); }
  int count() const { return sequences * heads * blocks; }

  static CausalWork Make(int length, int rows, bool of_queries, int heads, int sequences,
                         int thread_blocks) {
    CausalWork work = {rows, 0, of_queries, heads, sequences, (length + rows - 1) / rows, 0};
    if (of_queries) work.before = work.blocks * rows - (length + 63) / 64 * 64;
    work.rounds = work.pairs() / thread_blocks - 1;
    if (work.rounds < 0) work.rounds = 0;
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
      : work_(work), thread_block_(thread_block), thread_blocks_(thread_blocks) {}

  // Moves on to the next block of rows, to begin with to the first; false behind the last.
  HANLIN_HOST_DEVICE bool Next() {
    const int step = step_++;
    const int middle = work_.blocks / 2;
    if (step < 2 * work_.rounds) {
      const int item = step / 2 * thread_blocks_ + thread_block_;
      const int block = item / work_.heads % middle;
      head = item % work_.heads;
      sequence = item / work_.heads / middle;
      first = (step % 2 == 0 ? block : work_.blocks - 1 - block) * work_.rows - work_.before;
      return true;
    }
    const int round = step - 2 * work_.rounds;
    int item = round * thread_blocks_ +
               (round % 2 == 0 ? thread_block_ : thread_blocks_ - 1 - thread_block_);
    // The pairs begin again in the middle of a sequence: behind some of its blocks, and of the
    // next one's behind some heads.
    const int done = work_.rounds * thread_blocks_, whole = middle > 0 ? done / work_.heads : 0;
    const int done_sequences = middle > 0 ? whole / middle : 0;
    const int done_blocks = middle > 0 ? whole % middle : 0, done_heads = done % work_.heads;
    for (int rank = 0; rank < work_.blocks; ++rank) {
      const int block = work_.last_first ? work_.blocks - 1 - rank : rank;
      const int other = work_.blocks - 1 - block, pair = block < other ? block : other;
      int skipped_sequences = 0, skipped_heads = 0;
      if (block != other) {
        skipped_sequences = done_sequences;
        skipped_heads = pair < done_blocks ? work_.heads : pair == done_blocks ? done_heads : 0;
      }
      const int skipped = skipped_sequences * work_.heads + skipped_heads;
      const int count = work_.sequences * work_.heads - skipped;
      if (item < count) {
        head = (item + skipped) % work_.heads;
        sequence = (item + skipped) / work_.heads;
        first = block * work_.rows - work_.before;
        return true;
      }
      item -= count;
    }
    return false;
  }

  int head = 0, sequence = 0;
  int first = 0;  // position of the first row, before the sequence where it is negative

 private:
  const CausalWork& work_;
  int thread_block_, thread_blocks_;
  int step_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_SCHEDULE_H_
