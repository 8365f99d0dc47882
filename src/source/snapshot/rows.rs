//! Trace entries while they are read: one row each, checked as its keys arrive.
//!
//! What is wrong with a row is noted, not raised: only the lift knows the entry's place, and
//! whether it belongs to a device trace at all.

use std::num::NonZeroI64;

use super::{
    entries::Entries,
    heap::Value,
    keys::{Key, KeySet},
    raw::{Action, Entry, SIZE_LIMIT, Site},
    sites::Sites,
    text::{ContextId, Full, PoolRef, SiteId, StrId, Strings},
};
use crate::base::{Addr, Bytes, StreamHandle};

/// What is wrong with one key of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Problem {
    /// Not of the type named.
    Kind(&'static str, Value),
    /// Below zero.
    Negative(i64),
    /// At or above 2^60.
    TooBig(u64),
    /// At or above 2^63.
    TooHigh(u64),
    /// No action that the allocator writes.
    Action(StrId),
}

#[derive(Default)]
pub(super) struct Rows {
    pub(super) entries: Entries,
    pub(super) sites: Sites,
    /// Which of the required keys a row has, see [`bit`].
    has: Vec<u8>,
    /// The first problem of a row, with its key; ordered by row in real files.
    pub(super) problems: Vec<(u32, Key, Problem)>,
    /// Every key of any row.
    pub(super) seen: KeySet,
    /// Whether any row was an annotation.
    pub(super) has_annotations: bool,
    /// Unknown keys, each with the first row that has it.
    pub(super) unknown: Vec<(u32, Value)>,
}

/// An entry before its keys are read.
pub(super) const EMPTY: Entry = Entry {
    addr: Addr(0),
    size: Bytes(0),
    time_us: None,
    context: None,
    site: SiteId::UNKNOWN,
    action: Action::Alloc,
};

/// The keys that an entry needs.
const fn bit(key: Key) -> u8 {
    match key {
        Key::Action => 1,
        Key::Size => 2,
        Key::Stream => 4,
        Key::Addr => 8,
        Key::DeviceFree => 16,
        _ => 0,
    }
}

/// Nothing is missing.
const WHOLE: u8 = 128;

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn push(&mut self) {
        self.entries.push(EMPTY);
        self.has.push(0);
    }

    /// Adds an entry that lacks nothing and has these keys.
    #[inline]
    pub(super) fn push_whole(&mut self, entry: Entry, seen: KeySet) {
        self.entries.push(entry);
        self.has.push(WHOLE);
        self.seen = self.seen.union(seen);
        self.has_annotations |= entry.action == Action::Annotate;
    }

    /// The first required key that a row lacks.
    pub(super) fn missing(&self, row: u32) -> Option<Key> {
        let has = self.has[row as usize];
        if has & WHOLE != 0 {
            return None;
        }
        let action = self.entries.get(row).action;
        required(action).into_iter().find(|&key| has & bit(key) == 0)
    }

    fn problem(&mut self, row: u32, key: Key, problem: Problem) {
        if self.problems.last().is_none_or(|last| last.0 != row) {
            self.problems.push((row, key, problem));
        }
    }

    /// Notes an unknown key. Real files have a handful, so a search is cheap; the list is bounded.
    pub(super) fn unknown(&mut self, row: u32, key: Value) {
        let same = |other: &Value| match (key, *other) {
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Text(_), _) | (_, Value::Text(_)) => false,
            _ => true,
        };
        if self.unknown.len() < 64 && !self.unknown.iter().any(|(_, other)| same(other)) {
            self.unknown.push((row, key));
        }
    }

    pub(super) fn set_frames(&mut self, row: u32, context: Option<ContextId>, value: Value) {
        self.seen.add(Key::Frames);
        match (context, value) {
            (Some(_), _) => self.entries.get_mut(row).context = context,
            (None, Value::None) => {}
            (None, _) => self.problem(row, Key::Frames, Problem::Kind("a list of frames", value)),
        }
    }

    pub(super) fn set_pool(
        &mut self,
        row: u32,
        pool: Option<PoolRef>,
        value: Value,
    ) -> Result<(), Full> {
        self.seen.add(Key::PoolId);
        self.change_site(row, |site| site.pool = pool)?;
        if pool.is_none() && !matches!(value, Value::None) {
            self.problem(row, Key::PoolId, Problem::Kind("a pair of numbers", value));
        }
        Ok(())
    }

    fn change_site(&mut self, row: u32, change: impl FnOnce(&mut Site)) -> Result<(), Full> {
        let entry = self.entries.get_mut(row);
        let mut site = self.sites.get(entry.site);
        change(&mut site);
        entry.site = self.sites.intern(site)?;
        Ok(())
    }

    /// Sets any key but `frames` and `pool_id`.
    #[inline]
    pub(super) fn set(
        &mut self,
        row: u32,
        key: Key,
        value: Value,
        strings: &Strings,
    ) -> Result<(), Full> {
        self.seen.add(key);
        self.has[row as usize] |= bit(key);
        let entry = self.entries.get_mut(row);
        let outcome = match key {
            Key::Action => action(value, strings).map(|action| {
                entry.action = action;
                self.has_annotations |= action == Action::Annotate;
            }),
            Key::Size => size(value).map(|size| entry.size = size),
            Key::Addr | Key::DeviceFree => addr(value).map(|addr| entry.addr = addr),
            Key::Stream => match stream(value) {
                Ok(stream) => return self.change_site(row, |site| site.stream = stream),
                Err(problem) => Err(problem),
            },
            Key::TimeUs => time(value).map(|time| entry.time_us = time),
            Key::CompileContext => match text(value) {
                Ok(text) => return self.change_site(row, |site| site.compile_context = text),
                Err(problem) => Err(problem),
            },
            Key::UserMetadata => match text(value) {
                Ok(text) => return self.change_site(row, |site| site.user_metadata = text),
                Err(problem) => Err(problem),
            },
            Key::CppFrames | Key::ForwardFrames | Key::InternalMetadata | Key::Category => Ok(()),
            // A word of the snapshot's, but not one of an entry's.
            _ => {
                if let Some(id) = StrId::new(key as usize) {
                    self.unknown(row, Value::Text(id));
                }
                Ok(())
            }
        };
        if let Err(problem) = outcome {
            self.problem(row, key, problem);
        }
        Ok(())
    }
}

/// The first required key that an entry of these keys lacks.
#[inline]
pub(super) fn missing(seen: KeySet, action: Action) -> Option<Key> {
    required(action).into_iter().find(|&key| !seen.has(key))
}

fn required(action: Action) -> [Key; 4] {
    let place = if action == Action::Oom { Key::DeviceFree } else { Key::Addr };
    [Key::Action, Key::Size, Key::Stream, place]
}

fn action(value: Value, strings: &Strings) -> Result<Action, Problem> {
    let Value::Text(id) = value else { return Err(Problem::Kind("text", value)) };
    strings.action(id).ok_or(Problem::Action(id))
}

/// A number of bytes: from 0 to 2^60.
pub(super) fn size(value: Value) -> Result<Bytes, Problem> {
    match value {
        Value::Int(n) => match u64::try_from(n) {
            Ok(n) if n < SIZE_LIMIT => Ok(Bytes(n)),
            Ok(n) => Err(Problem::TooBig(n)),
            Err(_) => Err(Problem::Negative(n)),
        },
        Value::Big(n) => Err(Problem::TooBig(n)),
        _ => Err(Problem::Kind("a whole number", value)),
    }
}

/// An address: below 2^63, so that what lies there ends within 64 bits.
pub(super) fn addr(value: Value) -> Result<Addr, Problem> {
    match value {
        Value::Int(n) => u64::try_from(n).map(Addr).map_err(|_| Problem::Negative(n)),
        Value::Big(n) => Err(Problem::TooHigh(n)),
        _ => Err(Problem::Kind("a whole number", value)),
    }
}

/// A pointer; the C++ writer knows only signed numbers, so the bits count.
pub(super) fn stream(value: Value) -> Result<StreamHandle, Problem> {
    match value {
        Value::Int(n) => Ok(StreamHandle(n.cast_unsigned())),
        Value::Big(n) => Ok(StreamHandle(n)),
        _ => Err(Problem::Kind("a whole number", value)),
    }
}

fn time(value: Value) -> Result<Option<NonZeroI64>, Problem> {
    match value {
        Value::Int(n) => Ok(NonZeroI64::new(n)),
        Value::None => Ok(None),
        _ => Err(Problem::Kind("a whole number", value)),
    }
}

fn text(value: Value) -> Result<Option<StrId>, Problem> {
    match value {
        Value::Text(id) => Ok(Some(id)),
        Value::None => Ok(None),
        _ => Err(Problem::Kind("text", value)),
    }
}
