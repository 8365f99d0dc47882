//! The memo of a pickle: numbers to values.

use std::collections::HashMap;

use super::{
    heap::Value,
    text::{ContextId, PoolRef, StrId},
};

/// A value in eight bytes: a large snapshot gives millions of numbers away, and looks each up often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// The number was not given.
    Absent,
    Text(StrId),
    Pair(PoolRef),
    List(u32),
    Context(ContextId),
    Dict(u32),
    Row(u32),
    /// Anything else, by its place in [`Memo::others`].
    Other(u32),
}

const _: () = assert!(size_of::<Slot>() == 8);

/// Numbers are dense in every real file; a number far ahead of the rest goes to a map, so that a
/// few bytes cannot reserve gigabytes.
#[derive(Default)]
pub(super) struct Memo {
    dense: Vec<Slot>,
    sparse: HashMap<u32, Slot>,
    count: usize,
    /// Values without a slot of their own, such as numbers. No pickler memoizes one.
    others: Vec<Value>,
}

impl Memo {
    /// Gives `value` the next number.
    #[inline]
    pub(super) fn push(&mut self, value: Value) {
        if self.count == self.dense.len() {
            let slot = self.slot_of(value);
            self.push_slot(slot);
        } else {
            self.put(u32::try_from(self.count).unwrap_or(u32::MAX), value);
        }
    }

    /// The next number, where numbers were given without a gap.
    #[inline]
    pub(super) fn next(&self) -> Option<u32> {
        if self.count == self.dense.len() { u32::try_from(self.count).ok() } else { None }
    }

    /// Gives the next number, see [`Memo::next`].
    #[inline]
    pub(super) fn push_slot(&mut self, slot: Slot) {
        self.dense.push(slot);
        self.count += 1;
    }

    /// Gives `value` a number.
    pub(super) fn put(&mut self, index: u32, value: Value) {
        let at = index as usize;
        let slot = self.slot_of(value);
        let fresh = if at <= 2 * self.count + 1024 {
            if at >= self.dense.len() {
                self.dense.resize(at + 1, Slot::Absent);
            }
            // The number may have been far ahead once.
            let was_sparse = self.sparse.remove(&index).is_some();
            std::mem::replace(&mut self.dense[at], slot) == Slot::Absent && !was_sparse
        } else {
            self.sparse.insert(index, slot).is_none()
        };
        self.count += usize::from(fresh);
    }

    #[inline]
    fn slot_of(&mut self, value: Value) -> Slot {
        match value {
            Value::Text(id) => Slot::Text(id),
            Value::Pair(pool) => Slot::Pair(pool),
            Value::List(index) => Slot::List(index),
            Value::Context(context) => Slot::Context(context),
            Value::Dict(index) => Slot::Dict(index),
            Value::Row(row) => Slot::Row(row),
            Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Big(_)
            | Value::Float(_)
            | Value::Other => {
                self.others.push(value);
                // Each took a byte or more of the file to memoize.
                Slot::Other(u32::try_from(self.others.len() - 1).unwrap_or(u32::MAX))
            }
        }
    }

    /// The slot of a number.
    #[inline]
    pub(super) fn slot(&self, index: u32) -> Slot {
        match self.dense.get(index as usize) {
            Some(slot) if *slot != Slot::Absent => *slot,
            _ => self.sparse.get(&index).copied().unwrap_or(Slot::Absent),
        }
    }

    /// The value of a number.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<Value> {
        Some(match self.slot(index) {
            Slot::Absent => return None,
            Slot::Text(id) => Value::Text(id),
            Slot::Pair(pool) => Value::Pair(pool),
            Slot::List(index) => Value::List(index),
            Slot::Context(context) => Value::Context(context),
            Slot::Dict(index) => Value::Dict(index),
            Slot::Row(row) => Value::Row(row),
            Slot::Other(at) => *self.others.get(at as usize)?,
        })
    }
}
