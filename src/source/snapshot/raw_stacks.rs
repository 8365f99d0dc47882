//! Stacks by the bytes that they stand in the file with.

use std::hash::Hasher;

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::text::StackId;

/// Bytes that are kept; what comes later is looked up frame by frame.
const LIMIT: usize = 8 << 20;

/// The stacks that were read, by their bytes: numbers of frames that all are known. The same bytes are
/// the same stack as long as no number is given anew.
#[derive(Default)]
pub(super) struct RawStacks {
    bytes: Vec<u8>,
    /// Where the bytes of a stack begin and end.
    table: HashTable<(u32, u32, StackId)>,
    /// [`super::memo::Memo::changes`] when all this was true.
    changes: u64,
}

impl RawStacks {
    #[inline]
    pub(super) fn get(&mut self, raw: &[u8], changes: u64) -> Option<StackId> {
        if changes != self.changes {
            *self = Self { changes, ..Self::default() };
        }
        let bytes = &self.bytes;
        let found = self.table.find(hash(raw), |stack| slice(bytes, *stack) == raw);
        found.map(|(_, _, stack)| *stack)
    }

    /// Adds a stack that is not there yet.
    pub(super) fn add(&mut self, raw: &[u8], stack: StackId) {
        let ends = (u32::try_from(self.bytes.len()), u32::try_from(self.bytes.len() + raw.len()));
        let (Ok(start), Ok(end)) = ends else { return };
        if self.bytes.len() + raw.len() > LIMIT {
            return;
        }
        self.bytes.extend_from_slice(raw);
        let bytes = &self.bytes;
        self.table.insert_unique(hash(raw), (start, end, stack), |s| hash(slice(bytes, *s)));
    }
}

fn slice(bytes: &[u8], (start, end, _): (u32, u32, StackId)) -> &[u8] {
    bytes.get(start as usize..end as usize).unwrap_or_default()
}

fn hash(raw: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(raw);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_forgotten_when_a_number_is_given_anew() {
        let mut stacks = RawStacks::default();
        let stack = StackId::new(3).unwrap();
        assert_eq!(stacks.get(b"h\x01", 0), None);
        stacks.add(b"h\x01", stack);
        assert_eq!(stacks.get(b"h\x01", 0), Some(stack));
        assert_eq!(stacks.get(b"h\x02", 0), None);
        assert_eq!(stacks.get(b"h\x01", 1), None);
    }
}
