//! What a program asks for, by size.

use crate::{
    base::Bytes,
    trace::{Op, Trace},
};

/// Requests of one power of two: from it up to, but not with, the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeClass {
    /// The power of two; 0 for requests of no bytes.
    pub at_least: Bytes,
    /// How many.
    pub requests: u64,
    /// Their sum.
    pub bytes: Bytes,
}

/// The classes from the smallest request to the largest, empty ones between them too.
///
/// # Complexity
/// O(n) in the operations.
pub fn sizes(trace: &Trace) -> Vec<SizeClass> {
    let mut classes = [SizeClass::default(); 65];
    for op in trace.ops() {
        let Op::Alloc(alloc) = op else { continue };
        let class = &mut classes[alloc.size.0.checked_ilog2().map_or(0, |log| log as usize + 1)];
        class.requests += 1;
        class.bytes += alloc.size;
    }
    for (i, class) in classes.iter_mut().enumerate().skip(1) {
        class.at_least = Bytes(1 << (i - 1));
    }
    let first = classes.iter().position(|class| class.requests > 0).unwrap_or(0);
    let end = classes.iter().rposition(|class| class.requests > 0).map_or(first, |last| last + 1);
    classes[first..end].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::script;

    #[test]
    fn requests_are_counted_by_their_power_of_two() {
        let trace = script::parse("a = alloc 512; b = alloc 1023; c = alloc 2KiB").unwrap();
        let shown: Vec<_> =
            sizes(&trace).iter().map(|c| (c.at_least.0, c.requests, c.bytes.0)).collect();
        assert_eq!(shown, [(512, 2, 1535), (1024, 0, 0), (2048, 1, 2048)]);
    }

    #[test]
    fn a_program_without_requests_has_no_classes() {
        assert!(sizes(&Trace::default()).is_empty());
    }
}
