//! Small typed numbers: what an index counts is in its type.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Id;

macro_rules! index_type {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The id of a position.
            ///
            /// # Panics
            /// When the position does not fit; doors bound what they read, so that is our bug.
            #[inline]
            pub fn from_index(index: usize) -> Self {
                Self(<$inner>::try_from(index).expect("positions are bounded where input is read"))
            }
        }

        impl Id for $name {
            #[inline]
            fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

index_type! {
    /// One allocation of a trace, numbered 0.. in the order of their first use.
    AllocId(u32)
}
index_type! {
    /// One stream of a trace, numbered 0.. ; 0 is the default stream.
    StreamId(u16)
}
index_type! {
    /// A device ordinal, as in `cuda:0`.
    DeviceIndex(u8)
}
index_type! {
    /// Position of an operation in a trace.
    OpIndex(u32)
}

macro_rules! niche_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        const _: () = assert!(size_of::<Option<$name>>() == 4);

        impl $name {
            /// The id of position `index`.
            ///
            /// # Panics
            /// At 2^32 - 1 of them: more than a device can hold.
            #[inline]
            pub fn from_index(index: usize) -> Self {
                let next = u32::try_from(index + 1).expect("fewer than 2^32 of them");
                Self(NonZeroU32::new(next).expect("one more than an index is not zero"))
            }

            /// The id that [`Self::to_bits`] made these of; 0 is `None`.
            #[inline]
            pub fn from_bits(bits: u32) -> Option<Self> {
                NonZeroU32::new(bits).map(Self)
            }

            /// A number for tables that begin as zeros.
            #[inline]
            pub fn to_bits(id: Option<Self>) -> u32 {
                id.map_or(0, |id| id.0.get())
            }
        }

        impl Id for $name {
            #[inline]
            fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    };
}

niche_id! {
    /// One block of an arena. Four bytes, and `Option<BlockId>` too.
    BlockId
}
niche_id! {
    /// One expandable segment of an allocator.
    ExpandableId
}
niche_id! {
    /// One sorted run of a free index.
    RunId
}

/// The raw `cudaStream_t` pointer of a stream; 0 is the legacy default stream.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct StreamHandle(pub u64);

impl fmt::Display for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A memory pool's id. `(0, 0)` is the default pool, `(n, 0)` was made by a graph capture,
/// `(0, n)` by `torch.cuda.graph_pool_handle()` or `torch.cuda.MemPool`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct PoolId(pub u64, pub u64);

impl PoolId {
    /// The pool that serves everything that is not routed elsewhere.
    pub const DEFAULT: Self = Self(0, 0);

    /// Whether this is a private pool.
    pub fn is_private(self) -> bool {
        self != Self::DEFAULT
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({},{})", self.0, self.1)
    }
}

/// A release of PyTorch, 2.1 to 2.15; patch releases of one minor release behave alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    minor: u8,
}

/// Every release that is modelled, oldest first.
pub const RELEASES: [Release; 15] = {
    let mut all = [Release { minor: 0 }; 15];
    let mut i = 0;
    while i < 15 {
        #[expect(clippy::cast_possible_truncation, reason = "i is below 15")]
        let minor = i as u8 + 1;
        all[i] = Release { minor };
        i += 1;
    }
    all
};

impl Release {
    /// The oldest release that is modelled: 2.1.
    pub const OLDEST: Self = RELEASES[0];
    /// The newest release that is modelled: 2.15.
    pub const NEWEST: Self = RELEASES[14];

    /// Release `2.minor`, if it is modelled.
    pub const fn new(minor: u8) -> Option<Self> {
        if 1 <= minor && minor <= 15 { Some(Self { minor }) } else { None }
    }

    /// The `15` of `2.15`.
    pub const fn minor(self) -> u8 {
        self.minor
    }

    /// Whether this is release `2.minor` or a later one.
    #[inline]
    pub const fn at_least(self, minor: u8) -> bool {
        self.minor >= minor
    }
}

impl Default for Release {
    fn default() -> Self {
        Self::NEWEST
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "2.{}", self.minor)
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that names no modelled release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a modelled PyTorch release; write one from 2.1 to 2.15")]
pub struct ParseReleaseError(String);

impl FromStr for Release {
    type Err = ParseReleaseError;

    /// Reads `2.6`, `2.6.0`, `2.15.0+cu130`, `v2.1.2`.
    fn from_str(text: &str) -> Result<Self, ParseReleaseError> {
        let plain = text.trim().trim_start_matches('v');
        let plain = plain.split('+').next().unwrap_or(plain);
        let mut parts = plain.split('.');
        let minor = match (parts.next(), parts.next().map(str::parse::<u8>)) {
            (Some("2"), Some(Ok(minor))) => Self::new(minor),
            _ => None,
        };
        match (minor, parts.next().map(str::parse::<u8>), parts.next()) {
            (Some(release), None | Some(Ok(_)), None) => Ok(release),
            _ => Err(ParseReleaseError(text.to_owned())),
        }
    }
}

impl Serialize for Release {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Release {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_with_and_without_patch_level() {
        assert_eq!("2.6".parse(), Ok(RELEASES[5]));
        assert_eq!("v2.15.0+cu130".parse(), Ok(Release::NEWEST));
        for wrong in ["1.13", "2.16", "2", "2.x", "2.1.2.3", "latest"] {
            assert!(wrong.parse::<Release>().is_err(), "{wrong}");
        }
    }
}
