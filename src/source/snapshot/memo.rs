//! The memo of a pickle: numbers to values.

use std::collections::HashMap;

use super::heap::Value;

/// Numbers are dense in every real file; a number far ahead of the rest goes to a map, so that a
/// few bytes cannot reserve gigabytes.
#[derive(Default)]
pub(super) struct Memo {
    dense: Vec<Option<Value>>,
    sparse: HashMap<u32, Value>,
    count: usize,
}

impl Memo {
    /// Gives `value` the next number.
    #[inline]
    pub(super) fn push(&mut self, value: Value) {
        if self.count == self.dense.len() {
            self.dense.push(Some(value));
            self.count += 1;
        } else {
            self.put(u32::try_from(self.count).unwrap_or(u32::MAX), value);
        }
    }

    /// Gives `value` a number.
    pub(super) fn put(&mut self, index: u32, value: Value) {
        let at = index as usize;
        let fresh = if at <= 2 * self.count + 1024 {
            if at >= self.dense.len() {
                self.dense.resize(at + 1, None);
            }
            // The number may have been far ahead once.
            let old = self.sparse.remove(&index);
            self.dense[at].replace(value).or(old).is_none()
        } else {
            self.sparse.insert(index, value).is_none()
        };
        self.count += usize::from(fresh);
    }

    /// The value of a number. A reference: a value that passes through registers is taken apart
    /// and put together again, which costs more than all the rest of a look-up.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Value> {
        match self.dense.get(index as usize) {
            Some(Some(value)) => Some(value),
            _ => self.sparse.get(&index),
        }
    }
}
