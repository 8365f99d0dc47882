//! Scratch memory of a reduction over many rows.
//!
//! # Source
//! `aten/src/ATen/native/cuda/Reduce.cuh`, `setReduceConfig` and `global_memory_size`, 2.11; the
//! device is an H200 with 132 multiprocessors of 2,048 threads.

const MULTIPROCESSORS: u64 = 132;
const THREADS_OF_MULTIPROCESSOR: u64 = 2048;
const WARP: u64 = 32;
const MOST_THREADS: u64 = 512;
/// Sums are kept in float32.
const ACCUMULATOR: u64 = 4;

/// The staging buffer and the semaphores, in bytes, of the sum of a contiguous `[inputs, outputs]`
/// over its first side, as the gradient of a bias is; `None` if one block of threads sums a column.
pub(super) fn column_sum_scratch(inputs: u64, outputs: u64) -> Option<(u64, u64)> {
    if inputs == 0 || outputs == 0 {
        return None;
    }
    // Loads of four neighbours at a time, where the columns allow it.
    let vector = [4, 2, 1].into_iter().find(|v| outputs.is_multiple_of(*v)).unwrap_or(1);
    let most = MOST_THREADS / vector;
    let (x, y) = (last_power_of_2(outputs / vector, most), last_power_of_2(inputs, most));
    let height = y.min(most / x.min(WARP));
    let width = x.min(most / height);
    let threads = width * height;
    let of_a_thread = inputs;
    if of_a_thread < (height * 16).min(256) {
        return None;
    }
    let of_a_thread = inputs.div_ceil(height);
    let grid = (outputs / vector).div_ceil(width);
    let target = MULTIPROCESSORS * (THREADS_OF_MULTIPROCESSOR / threads);
    if of_a_thread < 256 || grid > target {
        return None;
    }
    let blocks = target.div_ceil(grid).min(of_a_thread.div_ceil(16)).max(of_a_thread.div_ceil(256));
    (blocks > 1).then(|| {
        let size = ACCUMULATOR.saturating_mul(outputs).saturating_mul(blocks);
        (size.saturating_mul(width * vector), 4 * grid)
    })
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
