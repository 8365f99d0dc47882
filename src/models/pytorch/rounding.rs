//! tmp
use super::*;
use crate::base::{Bytes, Release};
pub fn round_size(size: Bytes, div: &[u64; 16], release: Release) -> Bytes {
    if size.0 < 512 {
        return Bytes(512);
    }
    let index = (size.0.ilog2() as i64 - 20).clamp(0, 15) as usize;
    let d = div[index];
    let on = if release.at_least(4) { d > 1 } else { d > 0 };
    if on && size.0 > 512 * d {
        if size.0.is_power_of_two() || d <= 1 {
            return size;
        }
        let f = 1u64 << size.0.ilog2();
        let step = f >> d.ilog2();
        if step == 0 {
            return Bytes(2 * f);
        }
        let r = size.0 & !(step - 1);
        return Bytes(if r == size.0 { r } else { r + step });
    }
    size.round_up(MIN_BLOCK_SIZE)
}
pub fn get_allocation_size(size: Bytes, large: Bytes) -> Bytes {
    if size <= SMALL_SIZE {
        SMALL_BUFFER
    } else if size < MIN_LARGE_ALLOC {
        large
    } else {
        size.round_up(ROUND_LARGE)
    }
}
