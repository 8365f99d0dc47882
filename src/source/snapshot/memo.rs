//! The memo of a pickle: numbers to values.

use std::collections::HashMap;

use super::{
    heap::Value,
    text::{ContextId, PoolRef, StrId},
};
use crate::base::Id;

/// A value that has a number.
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

/// A slot in four bytes: a large snapshot gives millions of numbers away. The kind in three bits, and
/// an index below 2^29; 0 is [`Slot::Absent`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Small(u32);

const INDEX: u32 = 29;

impl Small {
    const ABSENT: Self = Self(0);

    /// `None` where the index is too large.
    #[inline]
    fn of(slot: Slot) -> Option<Self> {
        let (kind, index) = match slot {
            Slot::Absent => return Some(Self::ABSENT),
            Slot::Text(id) => (1, u32::try_from(id.index()).ok()?),
            Slot::Pair(pool) => (2, u32::try_from(pool.index()).ok()?),
            Slot::List(index) => (3, index),
            Slot::Context(context) => (4, u32::try_from(context.index()).ok()?),
            Slot::Dict(index) => (5, index),
            Slot::Row(row) => (6, row),
            Slot::Other(at) => (7, at),
        };
        (index < 1 << INDEX).then_some(Self(kind << INDEX | index))
    }

    #[inline]
    fn slot(self) -> Slot {
        let index = self.0 & ((1 << INDEX) - 1);
        let at = index as usize;
        match self.0 >> INDEX {
            0 => Slot::Absent,
            1 => StrId::new(at).map_or(Slot::Absent, Slot::Text),
            2 => PoolRef::new(at).map_or(Slot::Absent, Slot::Pair),
            3 => Slot::List(index),
            4 => ContextId::new(at).map_or(Slot::Absent, Slot::Context),
            5 => Slot::Dict(index),
            6 => Slot::Row(index),
            _ => Slot::Other(index),
        }
    }
}

/// Numbers are dense in every real file; a number far ahead of the rest goes to a map, so that a
/// few bytes cannot reserve gigabytes.
#[derive(Default)]
pub(super) struct Memo {
    dense: Vec<Small>,
    /// Numbers far ahead, and values that are not small.
    sparse: HashMap<u32, Slot>,
    count: usize,
    /// Values without a slot of their own, such as numbers. No pickler memoizes one.
    others: Vec<Value>,
    /// How often a number was given anew to another value.
    pub(super) changes: u64,
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
        let small = Small::of(slot);
        if small.is_none()
            && let Ok(index) = u32::try_from(self.dense.len())
        {
            self.sparse.insert(index, slot);
        }
        self.dense.push(small.unwrap_or(Small::ABSENT));
        self.count += 1;
    }

    /// Gives `value` a number.
    pub(super) fn put(&mut self, index: u32, value: Value) {
        let at = index as usize;
        let slot = self.slot_of(value);
        let is_fresh = self.slot(index) == Slot::Absent;
        // The number may have been far ahead once.
        self.sparse.remove(&index);
        let is_near = at <= 2 * self.count + 1024;
        if is_near && at >= self.dense.len() {
            self.dense.resize(at + 1, Small::ABSENT);
        }
        let small = Small::of(slot).filter(|_| is_near);
        if small.is_none() {
            self.sparse.insert(index, slot);
        }
        if let Some(place) = self.dense.get_mut(at) {
            *place = small.unwrap_or(Small::ABSENT);
        }
        self.count += usize::from(is_fresh);
        self.changes += u64::from(!is_fresh);
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
            Some(small) if *small != Small::ABSENT => small.slot(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_any_index_comes_back() {
        let mut memo = Memo::default();
        let all = [Slot::Row(0), Slot::Row((1 << INDEX) - 1), Slot::Row(1 << INDEX), Slot::Dict(7)];
        for slot in all {
            memo.push_slot(slot);
        }
        assert_eq!([0, 1, 2, 3, 4].map(|at| memo.slot(at))[..4], all);
        assert_eq!(memo.slot(4), Slot::Absent);
        assert_eq!(memo.next(), Some(4));
    }

    #[test]
    fn a_number_given_anew_is_a_change() {
        let mut memo = Memo::default();
        memo.put(0, Value::Row(1));
        memo.put(1 << 30, Value::Row(2));
        assert_eq!(memo.changes, 0);
        memo.put(1 << 30, Value::Row(3));
        memo.put(0, Value::Row(1 << INDEX));
        assert_eq!((memo.slot(0), memo.slot(1 << 30)), (Slot::Row(1 << INDEX), Slot::Row(3)));
        assert_eq!((memo.changes, memo.next()), (2, None));
    }
}
