//! [`Addr`] and [`Span`]: device addresses and half-open ranges of them.

use std::{
    fmt,
    ops::{Add, Sub},
};

use serde::{Deserialize, Serialize};

use super::Bytes;

/// A device address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Addr(pub u64);

impl Add<Bytes> for Addr {
    type Output = Self;
    #[inline]
    fn add(self, size: Bytes) -> Self {
        Self(self.0 + size.0)
    }
}

impl Sub for Addr {
    type Output = Bytes;
    #[inline]
    fn sub(self, start: Self) -> Bytes {
        Bytes(self.0 - start.0)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The addresses `[start, start + size)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First address.
    pub start: Addr,
    /// Length in bytes.
    pub size: Bytes,
}

impl Span {
    /// The span of `size` bytes from `start`.
    #[inline]
    pub const fn new(start: Addr, size: Bytes) -> Self {
        Self { start, size }
    }

    /// One past the last address.
    #[inline]
    pub fn end(self) -> Addr {
        self.start + self.size
    }

    /// Whether `addr` lies inside.
    #[inline]
    pub fn contains(self, addr: Addr) -> bool {
        self.start <= addr && addr < self.end()
    }

    /// Whether the two share at least one address.
    #[inline]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.size.0)
    }
}
