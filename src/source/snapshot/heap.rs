//! What a pickle builds: small `Copy` values that point into arenas.
//!
//! ```text
//!   Value (16 bytes) ── List(n) ─► list slot ─ open: a vector of values
//!                   │                         ├ trace entries in order: a range of `rows`
//!                   │                         └ a list of frames: a context id ─► stack id
//!                   └── Dict(n) ─► dict slot ─ open: a vector of pairs
//!                                             ├ a trace entry: row n of `rows`
//!                                             └ a stack frame: row n of `frame_rows`
//! ```
//! Trace entries and stack frames are condensed when their dict is filled, lists of frames when an
//! entry or a block takes them. Nothing is ever copied in depth, so what the file shares stays
//! shared, and nothing here recurses, so cycles do no harm.

use std::{
    hash::{Hash, Hasher},
    ops::Range,
};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::{
    fault::PickleFault as Fault,
    keys::Key,
    raw::{Entry, Frame},
    rows::Rows,
    text::{ContextId, FrameId, PoolRef, StackId, Stacks, StrId, Strings},
};
use crate::base::{Id, PoolId};

/// One value on the machine's stack.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// 2^63 and above.
    Big(u64),
    Float(f64),
    Text(StrId),
    /// A tuple of two whole numbers.
    Pair(PoolRef),
    /// A list or any other tuple.
    List(u32),
    Dict(u32),
    /// A dict that was a whole trace entry from the start.
    Row(u32),
    /// A list of frames that was one from the start.
    Context(ContextId),
    /// Bytes and sets: plain data that no snapshot holds.
    Other,
}

const _: () = assert!(size_of::<Option<Value>>() == 16);

#[derive(Clone, Copy, Debug)]
pub(super) enum ListSlot {
    Empty,
    Open(u32),
    /// Trace entries, by place in `runs`.
    Run(u32),
    Context(ContextId),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum DictSlot {
    Empty,
    Open(u32),
    Row(u32),
    Frame(u32),
    /// A frame that a stack has taken.
    Known(FrameId),
}

/// A frame dict that is perhaps not yet complete.
#[derive(Clone, Copy, Debug, Default)]
struct FrameRow {
    name: Option<StrId>,
    filename: Option<StrId>,
    line: u32,
}

/// Everything a pickle built.
#[derive(Default)]
pub(super) struct Heap {
    pub(super) strings: Strings,
    pub(super) pools: Vec<PoolId>,
    pool_table: HashTable<PoolRef>,
    pub(super) lists: Vec<ListSlot>,
    pub(super) open_lists: Vec<Vec<Value>>,
    free_lists: Vec<u32>,
    /// Rows of the lists that hold trace entries one after the other.
    pub(super) runs: Vec<Range<u32>>,
    pub(super) dicts: Vec<DictSlot>,
    pub(super) open_dicts: Vec<Vec<(Value, Value)>>,
    pub(super) rows: Rows,
    frame_rows: Vec<FrameRow>,
    pub(super) frames: Vec<Frame>,
    frame_table: HashTable<FrameId>,
    pub(super) stacks: Stacks,
    /// Stack of each context.
    pub(super) contexts: Vec<StackId>,
    scratch: Vec<FrameId>,
}

fn number(length: usize) -> Result<u32, Fault> {
    u32::try_from(length).map_err(|_| Fault::Full)
}

fn fx(value: impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Heap {
    pub(super) fn new() -> Self {
        Self { strings: Strings::with_keys(), ..Self::default() }
    }

    pub(super) fn text(&mut self, text: &str) -> Result<Value, Fault> {
        self.strings.intern(text).map(Value::Text).map_err(|_| Fault::Full)
    }

    pub(super) fn tuple(&mut self, items: &[Value]) -> Result<Value, Fault> {
        if let [a, b] = *items
            && let (Some(a), Some(b)) = (a.unsigned(), b.unsigned())
        {
            return self.pool(PoolId(a, b)).map(Value::Pair);
        }
        let list = self.list()?;
        self.append(list, items)?;
        Ok(list)
    }

    /// The number of a pool id, new or old.
    pub(super) fn pool(&mut self, pool: PoolId) -> Result<PoolRef, Fault> {
        let pools = &mut self.pools;
        let hash = fx(pool);
        if let Some(&id) = self.pool_table.find(hash, |id| pools[id.index()] == pool) {
            return Ok(id);
        }
        let id = PoolRef::new(pools.len()).ok_or(Fault::Full)?;
        pools.push(pool);
        self.pool_table.insert_unique(hash, id, |id| fx(pools[id.index()]));
        Ok(id)
    }

    pub(super) fn list(&mut self) -> Result<Value, Fault> {
        let index = number(self.lists.len())?;
        self.lists.push(ListSlot::Empty);
        Ok(Value::List(index))
    }

    pub(super) fn append(&mut self, list: Value, items: &[Value]) -> Result<(), Fault> {
        let index = match list {
            Value::List(index) => index,
            Value::Context(_) if items.is_empty() => return Ok(()),
            Value::Context(_) => return Err(Fault::Late),
            _ => return Err(Fault::NotA("list")),
        };
        if items.is_empty() {
            return Ok(());
        }
        let open = match self.lists[index as usize] {
            ListSlot::Open(open) => open,
            ListSlot::Context(_) => return Err(Fault::Late),
            ListSlot::Run(run) => {
                let next = self.runs[run as usize].end;
                if let Some(more) = self.run_of(items).filter(|more| more.start == next) {
                    self.runs[run as usize].end = more.end;
                    return Ok(());
                }
                self.open_run(index, run)?
            }
            ListSlot::Empty => {
                if let Some(run) = self.run_of(items) {
                    self.lists[index as usize] = ListSlot::Run(number(self.runs.len())?);
                    self.runs.push(run);
                    return Ok(());
                }
                self.open_list(index)?
            }
        };
        self.open_lists[open as usize].extend_from_slice(items);
        Ok(())
    }

    fn open_list(&mut self, index: u32) -> Result<u32, Fault> {
        let open = match self.free_lists.pop() {
            Some(open) => open,
            None => {
                self.open_lists.push(Vec::new());
                number(self.open_lists.len() - 1)?
            }
        };
        self.lists[index as usize] = ListSlot::Open(open);
        Ok(open)
    }

    /// A list of trace entries becomes one of values.
    fn open_run(&mut self, index: u32, run: u32) -> Result<u32, Fault> {
        let open = self.open_list(index)?;
        let rows = std::mem::take(&mut self.runs[run as usize]);
        self.open_lists[open as usize].extend(rows.map(Value::Row));
        Ok(open)
    }

    /// The rows that the items are, if they are trace entries one after the other.
    fn run_of(&self, items: &[Value]) -> Option<Range<u32>> {
        let row = |item: &Value| match *item {
            Value::Row(row) => Some(row),
            Value::Dict(dict) => match self.dicts[dict as usize] {
                DictSlot::Row(row) => Some(row),
                _ => None,
            },
            _ => None,
        };
        let first = row(items.first()?)?;
        let is_run = items.iter().zip(first..).all(|(item, next)| row(item) == Some(next));
        let count = u32::try_from(items.len()).ok()?;
        is_run.then_some(first..first.checked_add(count)?)
    }

    pub(super) fn dict(&mut self) -> Result<Value, Fault> {
        let index = number(self.dicts.len())?;
        self.dicts.push(DictSlot::Empty);
        Ok(Value::Dict(index))
    }

    /// Sets keys of a dict; `items` are keys and values in turn.
    pub(super) fn set(&mut self, dict: Value, items: &[Value]) -> Result<(), Fault> {
        if !matches!(dict, Value::Dict(_) | Value::Row(_)) {
            return Err(Fault::NotA("dict"));
        }
        if !items.len().is_multiple_of(2) {
            return Err(Fault::Odd);
        }
        if items.is_empty() {
            return Ok(());
        }
        let index = match dict {
            Value::Dict(index) => index,
            Value::Row(row) => return self.set_row(row, items),
            _ => return Err(Fault::NotA("dict")),
        };
        match self.dicts[index as usize] {
            DictSlot::Row(row) => self.set_row(row, items),
            DictSlot::Frame(frame) => self.set_frame(frame, items),
            DictSlot::Known(_) => Err(Fault::Late),
            DictSlot::Open(open) => {
                self.open_dicts[open as usize].extend(items.chunks_exact(2).map(|p| (p[0], p[1])));
                Ok(())
            }
            DictSlot::Empty if has(items, Key::Action) => {
                let row = self.new_row(index)?;
                self.set_row(row, items)
            }
            DictSlot::Empty if has(items, Key::Filename) => {
                let frame = self.new_frame(index)?;
                self.set_frame(frame, items)
            }
            DictSlot::Empty => {
                let open = number(self.open_dicts.len())?;
                self.open_dicts.push(items.chunks_exact(2).map(|p| (p[0], p[1])).collect());
                self.dicts[index as usize] = DictSlot::Open(open);
                Ok(())
            }
        }
    }

    fn new_row(&mut self, dict: u32) -> Result<u32, Fault> {
        let row = number(self.rows.len())?;
        self.rows.push();
        self.dicts[dict as usize] = DictSlot::Row(row);
        Ok(row)
    }

    fn new_frame(&mut self, dict: u32) -> Result<u32, Fault> {
        let frame = number(self.frame_rows.len())?;
        self.frame_rows.push(FrameRow::default());
        self.dicts[dict as usize] = DictSlot::Frame(frame);
        Ok(frame)
    }

    /// Frames only name places for people: a part that is missing or of another type reads as
    /// empty, and a line outside `u32` (releases before 2.3 wrote 2^64 - 1 for none) as 0.
    fn set_frame(&mut self, frame: u32, items: &[Value]) -> Result<(), Fault> {
        let row = &mut self.frame_rows[frame as usize];
        for pair in items.chunks_exact(2) {
            match (pair[0].key(), pair[1]) {
                (Some(Key::Name), Value::Text(text)) => row.name = Some(text),
                (Some(Key::Filename), Value::Text(text)) => row.filename = Some(text),
                (Some(Key::Line), Value::Int(line)) => row.line = u32::try_from(line).unwrap_or(0),
                _ => {}
            }
        }
        Ok(())
    }

    /// The row of a dict that is a trace entry. A dict filled key by key becomes one here.
    pub(super) fn as_row(&mut self, value: Value) -> Result<Option<u32>, Fault> {
        let index = match value {
            Value::Dict(index) => index,
            Value::Row(row) => return Ok(Some(row)),
            _ => return Ok(None),
        };
        match self.dicts[index as usize] {
            DictSlot::Row(row) => Ok(Some(row)),
            DictSlot::Empty => self.new_row(index).map(Some),
            DictSlot::Open(open) => {
                let items = flat(std::mem::take(&mut self.open_dicts[open as usize]));
                let row = self.new_row(index)?;
                self.set_row(row, &items)?;
                Ok(Some(row))
            }
            DictSlot::Frame(_) | DictSlot::Known(_) => Ok(None),
        }
    }

    fn as_frame(&mut self, value: Value) -> Result<Option<FrameId>, Fault> {
        let Value::Dict(index) = value else { return Ok(None) };
        let frame = match self.dicts[index as usize] {
            DictSlot::Known(id) => return Ok(Some(id)),
            DictSlot::Frame(frame) => frame,
            DictSlot::Open(open) => {
                let pairs = &self.open_dicts[open as usize];
                // A frame has a handful of keys; the bound keeps a hostile file from making us
                // search one large dict again and again.
                if pairs.len() > 64 || !pairs.iter().any(|(k, _)| k.key() == Some(Key::Filename)) {
                    return Ok(None);
                }
                let items = flat(std::mem::take(&mut self.open_dicts[open as usize]));
                let frame = self.new_frame(index)?;
                self.set_frame(frame, &items)?;
                frame
            }
            DictSlot::Empty | DictSlot::Row(_) => return Ok(None),
        };
        let row = self.frame_rows[frame as usize];
        let found = Frame { name: row.name, filename: row.filename, line: row.line };
        let frames = &mut self.frames;
        let hash = fx(found);
        let id = match self.frame_table.find(hash, |id| frames[id.index()] == found) {
            Some(&id) => id,
            None => {
                let id = FrameId::new(frames.len()).ok_or(Fault::Full)?;
                frames.push(found);
                self.frame_table.insert_unique(hash, id, |id| fx(frames[id.index()]));
                id
            }
        };
        self.dicts[index as usize] = DictSlot::Known(id);
        Ok(Some(id))
    }

    /// The context that a value is, if it is a list of frames. From here on the list is closed.
    pub(super) fn context(&mut self, value: Value) -> Result<Option<ContextId>, Fault> {
        let index = match value {
            Value::List(index) => index,
            Value::Context(context) => return Ok(Some(context)),
            _ => return Ok(None),
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        match self.lists[index as usize] {
            ListSlot::Context(context) => {
                self.scratch = scratch;
                return Ok(Some(context));
            }
            ListSlot::Empty => {}
            ListSlot::Run(_) => {
                self.scratch = scratch;
                return Ok(None);
            }
            ListSlot::Open(open) => {
                let mut items = std::mem::take(&mut self.open_lists[open as usize]);
                for &item in &items {
                    match self.as_frame(item)? {
                        Some(id) => scratch.push(id),
                        None => {
                            self.open_lists[open as usize] = items;
                            self.scratch = scratch;
                            return Ok(None);
                        }
                    }
                }
                items.clear();
                self.open_lists[open as usize] = items;
                self.free_lists.push(open);
            }
        }
        let stack = self.stacks.intern(&scratch).map_err(|_| Fault::Full)?;
        self.scratch = scratch;
        let context = ContextId::new(self.contexts.len()).ok_or(Fault::Full)?;
        self.contexts.push(stack);
        self.lists[index as usize] = ListSlot::Context(context);
        Ok(Some(context))
    }

    /// A pool id: a tuple or a list of two whole numbers.
    pub(super) fn pool_of(&mut self, value: Value) -> Result<Option<PoolRef>, Fault> {
        match value {
            Value::Pair(pool) => Ok(Some(pool)),
            Value::List(_) => match self.items(value) {
                Some(&[a, b]) => match (a.unsigned(), b.unsigned()) {
                    (Some(a), Some(b)) => self.pool(PoolId(a, b)).map(Some),
                    _ => Ok(None),
                },
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// The items of a list that no entry has taken as its frames.
    pub(super) fn items(&mut self, value: Value) -> Option<&[Value]> {
        let index = match value {
            Value::List(index) => index,
            Value::Context(context) => return self.is_empty(context).then_some(&[]),
            _ => return None,
        };
        if let ListSlot::Run(run) = self.lists[index as usize] {
            self.open_run(index, run).ok()?;
        }
        match self.lists[index as usize] {
            ListSlot::Run(_) => None,
            ListSlot::Empty => Some(&[]),
            ListSlot::Open(open) => Some(&self.open_lists[open as usize]),
            // An empty list may be shared by `frames` and by something else.
            ListSlot::Context(context) => self.is_empty(context).then_some(&[]),
        }
    }

    fn is_empty(&self, context: ContextId) -> bool {
        self.stacks.get(self.contexts[context.index()]).is_empty()
    }

    fn set_row(&mut self, row: u32, items: &[Value]) -> Result<(), Fault> {
        for pair in items.chunks_exact(2) {
            let (key, value) = (pair[0], pair[1]);
            match key.key() {
                Some(Key::Frames) => {
                    let context = self.context(value)?;
                    self.rows.set_frames(row, context, value);
                }
                Some(Key::PoolId) => {
                    let pool = self.pool_of(value)?;
                    self.rows.set_pool(row, pool, value).map_err(|_| Fault::Full)?;
                }
                Some(known) => {
                    self.rows.set(row, known, value, &self.strings).map_err(|_| Fault::Full)?;
                }
                None => self.rows.unknown(row, key),
            }
        }
        Ok(())
    }

    /// The entry of a row.
    pub(super) fn entry(&self, row: u32) -> Entry {
        self.rows.entries.get(row)
    }
}

fn has(items: &[Value], key: Key) -> bool {
    items.chunks_exact(2).any(|pair| pair[0].key() == Some(key))
}

fn flat(pairs: Vec<(Value, Value)>) -> Vec<Value> {
    pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()
}

impl Value {
    /// The known key that a text is.
    #[inline]
    pub(super) fn key(self) -> Option<Key> {
        match self {
            Self::Text(id) => Key::of_string(id.index()),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    #[inline]
    pub(super) fn unsigned(self) -> Option<u64> {
        match self {
            Self::Int(n) => u64::try_from(n).ok(),
            Self::Big(n) => Some(n),
            _ => None,
        }
    }

    /// The type in words.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Big(_) => "a whole number",
            Self::Float(_) => "a float",
            Self::Text(_) => "text",
            Self::Pair(_) => "a pair of numbers",
            Self::List(_) | Self::Context(_) => "a list",
            Self::Dict(_) | Self::Row(_) => "a dict",
            Self::Other => "bytes or a set",
        }
    }
}
