//! [`Labels`]: what the allocations of a trace are for, where somebody says so.

use crate::base::{AllocId, Id};

/// A name for each allocation, or none. Most traces have no labels, and then this takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    /// One more than the position in `names`; 0 or beyond the end is no label.
    of: Vec<u8>,
}

impl Labels {
    /// The most names that a trace may have.
    pub const MAX_NAMES: usize = 255;

    /// Whether no allocation has a label.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// All names in use, in the order in which they came.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The label of an allocation.
    pub fn get(&self, id: AllocId) -> Option<&str> {
        self.index(id).map(|i| self.names[i].as_str())
    }

    /// The position of an allocation's label in [`Labels::names`].
    pub fn index(&self, id: AllocId) -> Option<usize> {
        self.of.get(id.index()).and_then(|n| usize::from(*n).checked_sub(1))
    }

    /// Gives an allocation a label, in place of what it had. Returns whether there was room for the
    /// name: see [`Labels::MAX_NAMES`].
    pub(super) fn set(&mut self, id: AllocId, name: &str) -> bool {
        let known = self.names.iter().position(|n| n == name).unwrap_or(self.names.len());
        let Some(number) = u8::try_from(known + 1).ok() else { return false };
        if known == self.names.len() {
            self.names.push(name.to_owned());
        }
        if self.of.len() <= id.index() {
            self.of.resize(id.index() + 1, 0);
        }
        self.of[id.index()] = number;
        true
    }
}
