//! The fixed shape of a trace entry, decoded in one go.
//!
//! ```text
//!   } memo? ( key value  key value  … u        key   := a memo number
//!                                              value := number | text memo? | memo number
//!                                                     | ] memo? [ ( frame… e | frame a ]
//! ```
//! Nearly all bytes of a snapshot are entries that look like this, so they skip the machine's stack.
//! What looks otherwise (the first entries, whose keys are written out; new frames; anything odd or
//! wrong; the end of the window) is left to the machine, from the first byte: nothing was changed.

use std::num::NonZeroI64;

use super::{
    heap::{DictSlot, Heap},
    keys::{Key, KeySet},
    memo::{Memo, Slot},
    raw::{Entry, SIZE_LIMIT, Site},
    raw_stacks::RawStacks,
    rows::{self, EMPTY},
    text::{ContextId, FrameId, PoolRef, StackId, StrId},
};
use crate::base::{Addr, Bytes, Id, PoolId, StreamHandle};

/// Values that one entry may give numbers to.
const FRESH: usize = 12;

/// What is kept from entry to entry.
#[derive(Default)]
pub(super) struct Shape {
    frames: Vec<FrameId>,
    stacks: RawStacks,
    fresh: Vec<Slot>,
    /// The texts written out last: the same few come again and again.
    compile_context: Option<StrId>,
    user_metadata: Option<StrId>,
    pool: Option<(PoolId, PoolRef)>,
}

/// The frames of an entry.
#[derive(Clone, Copy)]
enum Frames {
    Absent,
    New(StackId),
    Known(ContextId),
}

/// Bytes that are left. It is handed on by value where a call may not be inlined: a reference would keep
/// it in memory, and every step would wait for the one before to be stored.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    /// The memo number that the next opcode asks for; `None` if it is another opcode.
    #[inline(always)]
    fn number(&mut self) -> Option<u32> {
        match self.0 {
            [b'h', index, rest @ ..] => {
                self.0 = rest;
                Some((*index).into())
            }
            [b'j', a, b, c, d, rest @ ..] => {
                self.0 = rest;
                Some(u32::from_le_bytes([*a, *b, *c, *d]))
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn int(&mut self) -> Option<i64> {
        match self.byte()? {
            0x8a => {
                let length = usize::from(self.byte()?);
                if !(1..=8).contains(&length) {
                    return None;
                }
                let wide = i64::from_le_bytes(*self.0.first_chunk()?);
                self.0 = &self.0[length..];
                let shift = 64 - 8 * length;
                Some((wide << shift) >> shift)
            }
            b'K' => self.byte().map(i64::from),
            b'M' => self.array().map(|bytes| u16::from_le_bytes(bytes).into()),
            b'J' => self.array().map(|bytes| i32::from_le_bytes(bytes).into()),
            _ => None,
        }
    }

    fn unsigned(&mut self) -> Option<u64> {
        self.int().and_then(|n| u64::try_from(n).ok())
    }
}

/// Gives the value that was read the next number, if the next opcode does.
#[inline(always)]
fn memoize(cursor: &mut Cursor<'_>, fresh: &mut Vec<Slot>, next: u32, slot: Slot) -> Option<()> {
    let given = match *cursor.0 {
        [0x94, ref rest @ ..] => rest,
        [b'q', index, ref rest @ ..] if is_next(next, fresh, index.into()) => rest,
        [b'r', a, b, c, d, ref rest @ ..]
            if is_next(next, fresh, u32::from_le_bytes([a, b, c, d])) =>
        {
            rest
        }
        [b'q' | b'r', ..] => return None,
        _ => return Some(()),
    };
    if fresh.len() == FRESH {
        return None;
    }
    cursor.0 = given;
    fresh.push(slot);
    Some(())
}

/// The next key of an entry, `Some(None)` where something else stands; it is noted as seen.
#[inline(always)]
fn next_key(cursor: &mut Cursor<'_>, seen: &mut KeySet, memo: &Memo) -> Option<Option<Key>> {
    let Some(number) = cursor.number() else { return Some(None) };
    let Slot::Text(word) = memo.slot(number) else { return None };
    let key = Key::of_string(word.index())?;
    seen.add(key);
    Some(Some(key))
}

fn is_next(next: u32, fresh: &[Slot], index: u32) -> bool {
    next as usize + fresh.len() == index as usize
}

impl Shape {
    /// Reads the entry that `bytes` begin with, behind its `}`: its row, and the bytes it took.
    /// `None` where it is of another shape; nothing is changed then, but that texts and stacks may
    /// be known that the entry holds.
    #[inline]
    pub(super) fn entry(
        &mut self,
        bytes: &[u8],
        heap: &mut Heap,
        memo: &mut Memo,
    ) -> Option<(u32, usize)> {
        let mut cursor = Cursor(bytes);
        let next = memo.next()?;
        let row = u32::try_from(heap.rows.len()).ok()?;
        self.fresh.clear();
        memoize(&mut cursor, &mut self.fresh, next, Slot::Row(row))?;
        if cursor.byte()? != b'(' {
            return None;
        }
        let mut entry = EMPTY;
        let mut site = Site::default();
        let mut seen = KeySet::default();
        let mut frames = Frames::Absent;
        let mut key = next_key(&mut cursor, &mut seen, memo)?;
        // Keys are asked for in the order in which PyTorch writes them: what is asked can be foreseen,
        // which a choice among all of them cannot. Keys in another order take more rounds.
        while let Some(first) = key {
            if key == Some(Key::Action) {
                let Slot::Text(word) = memo.slot(cursor.number()?) else { return None };
                entry.action = heap.strings.action(word)?;
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if let Some(Key::Addr | Key::DeviceFree) = key {
                entry.addr = Addr(cursor.unsigned()?);
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if key == Some(Key::Size) {
                entry.size = Bytes(cursor.unsigned().filter(|size| *size < SIZE_LIMIT)?);
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if key == Some(Key::Stream) {
                site.stream = StreamHandle(cursor.int()?.cast_unsigned());
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if key == Some(Key::TimeUs) {
                entry.time_us = NonZeroI64::new(cursor.int()?);
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if key == Some(Key::CompileContext) {
                let (text, rest) = text(cursor, heap, memo, self.compile_context)?;
                cursor = rest;
                self.compile_context = Some(text);
                site.compile_context = Some(text);
                memoize(&mut cursor, &mut self.fresh, next, Slot::Text(text))?;
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if key == Some(Key::UserMetadata) {
                let (text, rest) = text(cursor, heap, memo, self.user_metadata)?;
                cursor = rest;
                self.user_metadata = Some(text);
                site.user_metadata = Some(text);
                memoize(&mut cursor, &mut self.fresh, next, Slot::Text(text))?;
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if key == Some(Key::PoolId) {
                let (pool, rest) = self.pool(cursor, heap, memo, next)?;
                (site.pool, cursor) = (Some(pool), rest);
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if key == Some(Key::Frames) {
                (frames, cursor) = self.frames(cursor, heap, memo, next)?;
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if key == Some(Key::InternalMetadata) {
                let (text, rest) = text(cursor, heap, memo, None)?;
                cursor = rest;
                memoize(&mut cursor, &mut self.fresh, next, Slot::Text(text))?;
                key = next_key(&mut cursor, &mut seen, memo)?;
            }
            if key == Some(first) {
                return None;
            }
        }
        if cursor.byte()? != b'u' || rows::missing(seen, entry.action).is_some() {
            return None;
        }
        entry.site = heap.rows.sites.intern(site).ok()?;
        self.keep(entry, frames, seen, heap, memo)?;
        Some((row, bytes.len() - cursor.0.len()))
    }

    fn keep(
        &mut self,
        mut entry: Entry,
        frames: Frames,
        seen: KeySet,
        heap: &mut Heap,
        memo: &mut Memo,
    ) -> Option<()> {
        match frames {
            Frames::Absent => {}
            Frames::Known(context) => entry.context = Some(context),
            Frames::New(stack) => {
                let context = ContextId::new(heap.contexts.len())?;
                heap.contexts.push(stack);
                entry.context = Some(context);
            }
        }
        heap.rows.push_whole(entry, seen);
        for &slot in &self.fresh {
            memo.push_slot(slot);
        }
        Some(())
    }

    /// A list of frames that all are known, or one that another entry has.
    #[inline]
    fn frames<'a>(
        &mut self,
        mut cursor: Cursor<'a>,
        heap: &mut Heap,
        memo: &Memo,
        next: u32,
    ) -> Option<(Frames, Cursor<'a>)> {
        if let Some(number) = cursor.number() {
            let Slot::Context(context) = memo.slot(number) else { return None };
            return Some((Frames::Known(context), cursor));
        }
        if cursor.byte()? != b']' {
            return None;
        }
        let context = ContextId::new(heap.contexts.len())?;
        memoize(&mut cursor, &mut self.fresh, next, Slot::Context(context))?;
        if let [b'(', rest @ ..] = cursor.0 {
            let mut end = Cursor(rest);
            while end.number().is_some() {}
            let raw = &rest[..rest.len() - end.0.len()];
            if end.byte()? != b'e' {
                return None;
            }
            return self.stack(raw, heap, memo).map(|stack| (Frames::New(stack), end));
        }
        // One frame; or none, and what is asked for is the next key.
        let behind = cursor.0;
        let mut raw: &[u8] = &[];
        if let Some(number) = cursor.number()
            && !matches!(memo.slot(number), Slot::Text(_))
        {
            raw = &behind[..behind.len() - cursor.0.len()];
            if cursor.byte()? != b'a' {
                return None;
            }
        } else {
            cursor.0 = behind;
        }
        self.stack(raw, heap, memo).map(|stack| (Frames::New(stack), cursor))
    }

    /// The stack of frames with these numbers.
    #[inline]
    fn stack(&mut self, raw: &[u8], heap: &mut Heap, memo: &Memo) -> Option<StackId> {
        if let Some(stack) = self.stacks.get(raw, memo.changes) {
            return Some(stack);
        }
        self.frames.clear();
        let mut numbers = Cursor(raw);
        while let Some(number) = numbers.number() {
            let Slot::Dict(dict) = memo.slot(number) else { return None };
            let DictSlot::Known(frame) = heap.dicts[dict as usize] else { return None };
            self.frames.push(frame);
        }
        let stack = heap.stacks.intern(&self.frames).ok()?;
        self.stacks.add(raw, stack);
        Some(stack)
    }

    fn pool<'a>(
        &mut self,
        mut cursor: Cursor<'a>,
        heap: &mut Heap,
        memo: &Memo,
        next: u32,
    ) -> Option<(PoolRef, Cursor<'a>)> {
        if let Some(number) = cursor.number() {
            let Slot::Pair(pool) = memo.slot(number) else { return None };
            return Some((pool, cursor));
        }
        let id = PoolId(cursor.unsigned()?, cursor.unsigned()?);
        if cursor.byte()? != 0x86 {
            return None;
        }
        let pool = match self.pool {
            Some((known, pool)) if known == id => pool,
            _ => heap.pool(id).ok()?,
        };
        self.pool = Some((id, pool));
        memoize(&mut cursor, &mut self.fresh, next, Slot::Pair(pool))?;
        Some((pool, cursor))
    }
}

/// A text, which is often the same as the `last` one.
#[inline]
fn text<'a>(
    mut cursor: Cursor<'a>,
    heap: &mut Heap,
    memo: &Memo,
    last: Option<StrId>,
) -> Option<(StrId, Cursor<'a>)> {
    if let Some(number) = cursor.number() {
        let Slot::Text(text) = memo.slot(number) else { return None };
        return Some((text, cursor));
    }
    let length = match cursor.byte()? {
        0x8c => cursor.byte()?.into(),
        b'X' => u32::from_le_bytes(cursor.array()?) as usize,
        _ => return None,
    };
    let (bytes, rest) = cursor.0.split_at_checked(length)?;
    let known = last.filter(|last| heap.strings.get(*last).as_bytes() == bytes);
    let text = match known {
        Some(text) => text,
        None => heap.strings.intern(std::str::from_utf8(bytes).ok()?).ok()?,
    };
    Some((text, Cursor(rest)))
}
