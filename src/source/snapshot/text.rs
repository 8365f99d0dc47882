//! Interned strings, frames and stacks: each distinct one is stored once and named by a number.

use std::{fmt, hash::Hasher, num::NonZeroU32};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::keys::Key;
use crate::{base::Id, trace::Action};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        const _: () = assert!(size_of::<Option<$name>>() == 4);

        impl $name {
            /// The id of position `index`, if it is below 2^32 - 1.
            #[inline]
            pub(super) fn new(index: usize) -> Option<Self> {
                u32::try_from(index).ok()?.checked_add(1).and_then(NonZeroU32::new).map(Self)
            }
        }

        impl Id for $name {
            #[inline]
            fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.index())
            }
        }
    };
}

number! {
    /// A string of a snapshot.
    StrId
}
number! {
    /// A distinct stack frame of a snapshot.
    FrameId
}
number! {
    /// A distinct stack (a sequence of frames) of a snapshot.
    StackId
}
number! {
    /// One recorded context *object*: one `frames` list of the file. Entries of one operation
    /// share it, while two contexts may hold equal stacks.
    ContextId
}
number! {
    /// A distinct pool id of the trace entries, see [`Snapshot::pool`](super::raw::Snapshot::pool).
    PoolRef
}

number! {
    /// Whose memory an entry is about, and in which setting: a distinct [`Site`](super::raw::Site).
    SiteId
}

impl SiteId {
    /// Nothing is known: [`Site::default`](super::raw::Site).
    pub(super) const UNKNOWN: Self = Self(NonZeroU32::MIN);
}

const _: () = assert!(size_of::<StrId>() == 4);

/// More distinct things than four bytes can number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

/// Distinct strings in one buffer.
#[derive(Clone, Default)]
pub struct Strings {
    text: String,
    /// End of each string in `text`.
    ends: Vec<u32>,
    table: HashTable<StrId>,
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Strings({} in {} bytes)", self.ends.len(), self.text.len())
    }
}

impl Strings {
    /// The known keys, numbered as [`Key`] numbers them, and behind them the names of the actions.
    pub(super) fn with_keys() -> Self {
        let mut strings = Self::default();
        let keys = Key::ALL.iter().map(|key| key.name());
        for word in keys.chain(Action::ALL.iter().map(|action| action.name())) {
            // A few hundred bytes: cannot be full.
            let _ = strings.intern(word);
        }
        strings
    }

    /// The action that a string names.
    #[inline]
    pub(super) fn action(&self, id: StrId) -> Option<Action> {
        Action::ALL.get(id.index().checked_sub(Key::ALL.len())?).copied()
    }

    /// The number of `text`, new or old.
    ///
    /// # Complexity
    /// O(length).
    pub(super) fn intern(&mut self, text: &str) -> Result<StrId, Full> {
        let hash = hash_bytes(text.as_bytes());
        let Self { text: all, ends, table } = self;
        if let Some(&id) = table.find(hash, |&id| slice(all, ends, id) == text) {
            return Ok(id);
        }
        let id = StrId::new(ends.len()).ok_or(Full)?;
        let end = u32::try_from(all.len() + text.len()).map_err(|_| Full)?;
        all.push_str(text);
        ends.push(end);
        table.insert_unique(hash, id, |&id| hash_bytes(slice(all, ends, id).as_bytes()));
        Ok(id)
    }

    /// The string of `id`; empty for an id of another snapshot.
    pub fn get(&self, id: StrId) -> &str {
        slice(&self.text, &self.ends, id)
    }

    /// Number of distinct strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

fn slice<'a>(text: &'a str, ends: &[u32], id: StrId) -> &'a str {
    let index = id.index();
    let start = if index == 0 { Some(0) } else { ends.get(index - 1).copied() };
    match (start, ends.get(index)) {
        (Some(start), Some(&end)) => text.get(start as usize..end as usize).unwrap_or(""),
        _ => "",
    }
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// Distinct stacks in one buffer.
#[derive(Clone, Default)]
pub struct Stacks {
    frames: Vec<FrameId>,
    /// End of each stack in `frames`.
    ends: Vec<u32>,
    table: HashTable<StackId>,
}

impl fmt::Debug for Stacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stacks({} of {} frames)", self.ends.len(), self.frames.len())
    }
}

impl Stacks {
    /// The number of `stack`, new or old.
    ///
    /// # Complexity
    /// O(depth).
    pub(super) fn intern(&mut self, stack: &[FrameId]) -> Result<StackId, Full> {
        let hash = hash_frames(stack);
        let Self { frames, ends, table } = self;
        if let Some(&id) = table.find(hash, |&id| stack_of(frames, ends, id) == stack) {
            return Ok(id);
        }
        let id = StackId::new(ends.len()).ok_or(Full)?;
        let end = u32::try_from(frames.len() + stack.len()).map_err(|_| Full)?;
        frames.extend_from_slice(stack);
        ends.push(end);
        table.insert_unique(hash, id, |&id| hash_frames(stack_of(frames, ends, id)));
        Ok(id)
    }

    /// The frames of a stack, innermost first; none for an id of another snapshot.
    pub fn get(&self, id: StackId) -> &[FrameId] {
        stack_of(&self.frames, &self.ends, id)
    }

    /// Number of distinct stacks.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no stacks.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

fn stack_of<'a>(frames: &'a [FrameId], ends: &[u32], id: StackId) -> &'a [FrameId] {
    let index = id.index();
    let start = if index == 0 { Some(0) } else { ends.get(index - 1).copied() };
    match (start, ends.get(index)) {
        (Some(start), Some(&end)) => frames.get(start as usize..end as usize).unwrap_or(&[]),
        _ => &[],
    }
}

fn hash_frames(stack: &[FrameId]) -> u64 {
    let mut hasher = FxHasher::default();
    for frame in stack {
        hasher.write_u32(frame.0.get());
    }
    hasher.finish()
}
