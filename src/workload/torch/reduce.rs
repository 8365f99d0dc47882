//! Scratch memory of reductions.
//!
//! # Source
//! `aten/src/ATen/native/cuda/Reduce.cuh`, `setReduceConfig` and `global_memory_size`, 2.11; the
//! device is an H200 with 132 multiprocessors of 2,048 threads.

const MULTIPROCESSORS: u64 = 132;
const THREADS_OF_MULTIPROCESSOR: u64 = 2048;
const WARP: u64 = 32;
const MOST_THREADS: u64 = 512;
/// Sums are kept in float32.
const SUM: u64 = 4;
/// A number and where it was.
const LARGEST: u64 = 16;
/// Neighbours that are loaded at a time.
const VECTOR: u64 = 4;
/// A thread adds up no more than this.
const MOST_OF_A_THREAD: u64 = 256;
/// It is not worth to give a thread less than this.
const FEWEST_OF_A_THREAD: u64 = 16;

/// The staging buffer and the semaphores, in bytes, of the sum of a contiguous `[inputs, outputs]`
/// over its first side, as the gradient of a bias is; `None` if one block of threads sums a column.
pub(super) fn column_sum_scratch(inputs: u64, outputs: u64) -> Option<(u64, u64)> {
    // Loads of neighbours at a time, where the columns allow it.
    let vector = [VECTOR, 2, 1].into_iter().find(|v| outputs.is_multiple_of(*v)).unwrap_or(1);
    let (width, height) = (outputs / vector, inputs);
    Reduction { accumulator: SUM, inputs, outputs, vector, width, height, rows: false }.scratch()
}

/// The same of a contiguous `[outputs, inputs]` over its last side.
pub(super) fn row(inputs: u64, outputs: u64) -> Option<(u64, u64)> {
    if outputs == 1 {
        return whole(inputs);
    }
    by_row(SUM, inputs, outputs).scratch()
}

/// The same of so many numbers into one.
pub(super) fn whole(inputs: u64) -> Option<(u64, u64)> {
    let width = if inputs >= 128 { inputs / VECTOR } else { inputs };
    Reduction { width, ..by_row(SUM, inputs, 1) }.scratch()
}

/// The same of the place of the largest number of each row, of rows that lie apart.
pub(super) fn largest(inputs: u64, outputs: u64) -> Option<(u64, u64)> {
    by_row(LARGEST, inputs, outputs).scratch()
}

fn by_row(accumulator: u64, inputs: u64, outputs: u64) -> Reduction {
    let (width, height) = (inputs, outputs);
    Reduction { accumulator, inputs, outputs, vector: 1, width, height, rows: true }
}

struct Reduction {
    /// Bytes of what is kept for an output.
    accumulator: u64,
    inputs: u64,
    outputs: u64,
    /// Neighbouring outputs of a thread.
    vector: u64,
    /// What a block of threads is spread over, along and across memory.
    width: u64,
    height: u64,
    /// Whether what is added up lies side by side.
    rows: bool,
}

impl Reduction {
    fn scratch(&self) -> Option<(u64, u64)> {
        if self.inputs == 0 || self.outputs == 0 {
            return None;
        }
        let most = MOST_THREADS / self.vector;
        let (x, y) = (last_power_of_2(self.width, most), last_power_of_2(self.height, most));
        let height = y.min(most / x.min(WARP));
        let width = x.min(most / height);
        let mut inputs_at_once = if self.rows { width } else { 1 };
        let mut outputs_at_once = if self.rows { 1 } else { width };
        let of_a_thread = self.inputs.div_ceil(inputs_at_once);
        if of_a_thread < (height * FEWEST_OF_A_THREAD).min(MOST_OF_A_THREAD) {
            return None;
        }
        inputs_at_once *= height;
        outputs_at_once = outputs_at_once.max(1);
        let of_a_thread = self.inputs.div_ceil(inputs_at_once);
        let grid = (self.outputs / self.vector).div_ceil(outputs_at_once);
        let target = MULTIPROCESSORS * (THREADS_OF_MULTIPROCESSOR / (width * height));
        if of_a_thread < MOST_OF_A_THREAD || grid > target {
            return None;
        }
        let blocks = target
            .div_ceil(grid)
            .min(of_a_thread.div_ceil(FEWEST_OF_A_THREAD))
            .max(of_a_thread.div_ceil(MOST_OF_A_THREAD));
        let columns = if self.rows { 1 } else { width * self.vector };
        (blocks > 1).then(|| {
            let size = self.accumulator.saturating_mul(self.outputs).saturating_mul(blocks);
            (size.saturating_mul(columns), 4 * grid)
        })
    }
}

fn last_power_of_2(n: u64, most: u64) -> u64 {
    if n >= most { most } else { 1 << n.max(1).ilog2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen in `scenarios/precision_gpt_b8__amp_bf16`.
    #[test]
    fn bias_gradients_take_what_was_recorded() {
        assert_eq!(column_sum_scratch(4096, 3072), Some((100_663_296, 96)));
        assert_eq!(column_sum_scratch(4096, 4096), Some((134_217_728, 128)));
        assert_eq!(column_sum_scratch(4096, 1024), Some((33_554_432, 32)));
    }
}
