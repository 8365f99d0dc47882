//! From what the pickle built to a [`Snapshot`]: the names and types of the format, and the sums
//! that must hold. Everything is visited at most once, so sharing in the file costs nothing.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use super::{
    heap::{DictSlot, Heap, ListSlot, Value},
    keys::{Key, KeySet},
    pickle::short,
    raw::{
        Action, Annotation, Block, BlockState, Entry, Format, KeysSeen, Segment, SegmentType,
        Settings, Snapshot, Stage,
    },
    rows::{self, Problem},
    text::StackId,
};
use crate::base::{Addr, Bytes, DeviceIndex, Id, PoolId, Span};

/// A snapshot whose pickle is sound but whose contents are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct FormatError {
    /// Where, such as `device_traces[0][17].size`.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

/// A way down from the top of the file; written out only when something is wrong.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Top,
    Index(&'a Self, usize),
    Key(&'a Self, Key),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => f.write_str("the snapshot"),
            Self::Index(Self::Top, index) => write!(f, "[{index}]"),
            Self::Index(outer, index) => write!(f, "{outer}[{index}]"),
            Self::Key(Self::Top, key) => f.write_str(key.name()),
            Self::Key(outer, key) => write!(f, "{outer}.{}", key.name()),
        }
    }
}

impl Place<'_> {
    fn fail<T>(&self, what: impl Into<String>) -> Result<T, FormatError> {
        Err(FormatError { place: self.to_string(), what: what.into() })
    }
}

/// Most devices that are read.
const DEVICES: usize = 256;
/// Most keys of a dict that is searched.
const KEYS: usize = 256;

/// The keys of one dict that are known, and the rest noted.
struct View {
    pairs: Vec<(Key, Value)>,
    seen: KeySet,
}

impl View {
    /// The value of a key. As in Python, the last one counts; None is as good as absent.
    fn get(&self, key: Key) -> Option<Value> {
        let pair = self.pairs.iter().rfind(|(other, _)| *other == key)?;
        Some(pair.1).filter(|value| !matches!(value, Value::None))
    }
}

pub(super) struct Lift {
    heap: Heap,
    seen: KeysSeen,
    unknown: Vec<String>,
    known_unknowns: HashSet<(&'static str, u32)>,
    /// Lists and dicts that were taken; a second time would multiply what the file shares.
    taken_lists: HashSet<u32>,
    taken_dicts: HashSet<u32>,
}

/// Lifts the snapshot that `root` is.
pub(super) fn lift(heap: Heap, root: Value) -> Result<Snapshot, FormatError> {
    let mut lift = Lift {
        heap,
        seen: KeysSeen::default(),
        unknown: Vec::new(),
        known_unknowns: HashSet::new(),
        taken_lists: HashSet::new(),
        taken_dicts: HashSet::new(),
    };
    let top = Place::Top;
    let (view, segments) = match root {
        Value::List(_) => (None, root),
        Value::Dict(_) => {
            let view = lift.view(&top, root, "snapshot", "a dict with 'segments'", TOP)?;
            lift.seen.top = view.seen;
            let segments = lift.need(&top, &view, Key::Segments)?;
            (Some(view), segments)
        }
        _ => return top.fail(format!("is {}; expected a dict with 'segments'", root.kind())),
    };
    let get = |key| view.as_ref().and_then(|view| view.get(key));
    let place = if view.is_some() { Place::Key(&top, Key::Segments) } else { top };
    let segments = lift.segments(&place, segments)?;
    let traces = match get(Key::DeviceTraces) {
        Some(value) => lift.traces(&Place::Key(&top, Key::DeviceTraces), value)?,
        None => Vec::new(),
    };
    let settings = match get(Key::AllocatorSettings) {
        Some(value) => Some(lift.settings(&Place::Key(&top, Key::AllocatorSettings), value)?),
        None => None,
    };
    let annotations = match get(Key::ExternalAnnotations) {
        Some(value) => lift.annotations(&Place::Key(&top, Key::ExternalAnnotations), value)?,
        None => Vec::new(),
    };
    let has_host = get(Key::HostSegments).is_some() || get(Key::HostTraces).is_some();
    lift.seen.annotate = traces.iter().flatten().any(|entry| entry.action == Action::Annotate);
    let format = match view {
        None => Format::List,
        Some(_) if lift.is_history() => Format::History,
        Some(_) => Format::Current,
    };
    let Lift { heap, seen, unknown, .. } = lift;
    Ok(Snapshot {
        format,
        segments,
        traces,
        settings,
        annotations,
        strings: heap.strings,
        frames: heap.frames,
        stacks: heap.stacks,
        contexts: heap.contexts,
        pools: heap.pools,
        seen,
        has_host,
        warnings: unknown,
    })
}

const TOP: &[Key] = &[
    Key::Segments,
    Key::DeviceTraces,
    Key::AllocatorSettings,
    Key::ExternalAnnotations,
    Key::HostSegments,
    Key::HostTraces,
];

const SEGMENT: &[Key] = &[
    Key::Device,
    Key::Address,
    Key::TotalSize,
    Key::AllocatedSize,
    Key::ActiveSize,
    Key::RequestedSize,
    Key::Stream,
    Key::SegmentType,
    Key::SegmentPoolId,
    Key::IsExpandable,
    Key::Frames,
    Key::CppFrames,
    Key::ForwardFrames,
    Key::Blocks,
];

const BLOCK: &[Key] = &[
    Key::Address,
    Key::Size,
    Key::RequestedSize,
    Key::State,
    Key::Frames,
    Key::CppFrames,
    Key::ForwardFrames,
    Key::History,
    Key::UserMetadata,
    Key::CompileContext,
];

const HISTORY: &[Key] = &[Key::Addr, Key::RealSize, Key::Frames, Key::CppFrames];

const ANNOTATION: &[Key] = &[Key::Name, Key::Stage, Key::Device, Key::TimeUs];

const SETTINGS: &[Key] = &[
    Key::Conf,
    Key::MaxSplitSize,
    Key::GarbageCollectionThreshold,
    Key::ExpandableSegments,
    Key::PinnedNumRegisterThreads,
    Key::ReleaseLockOnCudamalloc,
    Key::PinnedUseCudaHostRegister,
    Key::RoundupPower2Divisions,
    Key::GraphCaptureRecordStreamReuse,
    Key::MaxRoundThreshold,
    Key::MaxCachedSize,
];

impl Lift {
    /// Whether this is the shape of 2.0: blocks without addresses, or, where there are no blocks,
    /// entries without times.
    fn is_history(&self) -> bool {
        let block = self.seen.block;
        let segment = self.seen.segment;
        if block.has(Key::Size) {
            !block.has(Key::Address)
        } else if segment.has(Key::Device) {
            !segment.has(Key::SegmentPoolId)
        } else {
            false
        }
    }

    /// The known keys of a dict; the others are noted once.
    fn view(
        &mut self,
        place: &Place<'_>,
        value: Value,
        level: &'static str,
        expected: &str,
        known: &[Key],
    ) -> Result<View, FormatError> {
        let slot = match value {
            Value::Dict(index) => Some(self.heap.dicts[index as usize]),
            _ => None,
        };
        let open = match slot {
            Some(DictSlot::Open(open)) => open,
            Some(DictSlot::Empty) => {
                return Ok(View { pairs: Vec::new(), seen: KeySet::default() });
            }
            Some(DictSlot::Row(_)) => {
                return place.fail(format!("is a trace entry; expected {expected}"));
            }
            Some(DictSlot::Frame(_)) => {
                return place.fail(format!("is a stack frame; expected {expected}"));
            }
            None => return place.fail(format!("is {}; expected {expected}", value.kind())),
        };
        let raw = &self.heap.open_dicts[open as usize];
        if raw.len() > KEYS {
            return place.fail(format!("has {} keys; expected {expected}", raw.len()));
        }
        let wanted = KeySet::of(known);
        let mut view = View { pairs: Vec::with_capacity(raw.len()), seen: KeySet::default() };
        let mut others = Vec::new();
        for &(key, value) in raw {
            match key.key().filter(|&key| wanted.has(key)) {
                Some(key) => {
                    view.pairs.push((key, value));
                    view.seen.add(key);
                }
                None => others.push(key),
            }
        }
        for key in others {
            self.note(level, key);
        }
        Ok(view)
    }

    /// Notes an unknown key. The list is bounded: a hostile file may hold millions.
    fn note(&mut self, level: &'static str, key: Value) {
        let (id, name) = match key {
            Value::Text(id) => {
                (u32::try_from(id.index()).unwrap_or(u32::MAX), short(self.heap.strings.get(id)))
            }
            _ => (u32::MAX, format!("({})", key.kind())),
        };
        if self.known_unknowns.len() < 256 && self.known_unknowns.insert((level, id)) {
            self.unknown.push(format!("unknown key '{name}' of a {level} is ignored"));
        }
    }

    fn need(&self, place: &Place<'_>, view: &View, key: Key) -> Result<Value, FormatError> {
        match view.get(key) {
            Some(value) => Ok(value),
            None => place.fail(format!("has no key '{}'", key.name())),
        }
    }

    /// A list that was not taken before, to be gone through.
    fn take_list(&mut self, place: &Place<'_>, value: Value) -> Result<Vec<Value>, FormatError> {
        let Value::List(index) = value else {
            return place.fail(format!("is {}; expected a list", value.kind()));
        };
        let slot = self.heap.lists[index as usize];
        if let ListSlot::Open(open) = slot {
            if !self.taken_lists.insert(index) {
                return place.fail("is a list that stands elsewhere in the snapshot too");
            }
            return Ok(std::mem::take(&mut self.heap.open_lists[open as usize]));
        }
        match self.heap.items(value) {
            Some(_) => Ok(Vec::new()),
            None => place.fail("is a list of stack frames; expected another list"),
        }
    }

    fn once(&mut self, place: &Place<'_>, value: Value) -> Result<(), FormatError> {
        match value {
            Value::Dict(index) if !self.taken_dicts.insert(index) => {
                place.fail("is an object that stands elsewhere in the snapshot too")
            }
            _ => Ok(()),
        }
    }

    fn problem<T>(&self, place: &Place<'_>, problem: Problem) -> Result<T, FormatError> {
        place.fail(match problem {
            Problem::Kind(expected, got) => format!("is {}; expected {expected}", got.kind()),
            Problem::Negative(n) => format!("is {n}; it cannot be negative"),
            Problem::TooBig(n) => format!("is {n}; sizes are below 2^60"),
            Problem::Action(id) => {
                let name = short(self.heap.strings.get(id));
                format!("'{name}' is no action that an allocator records")
            }
        })
    }

    fn size(&self, place: &Place<'_>, view: &View, key: Key) -> Result<Bytes, FormatError> {
        match self.optional_size(place, view, key)? {
            Some(size) => Ok(size),
            None => self.need(place, view, key).map(|_| Bytes(0)),
        }
    }

    fn optional_size(
        &self,
        place: &Place<'_>,
        view: &View,
        key: Key,
    ) -> Result<Option<Bytes>, FormatError> {
        match view.get(key).map(rows::size).transpose() {
            Ok(size) => Ok(size),
            Err(problem) => self.problem(&Place::Key(place, key), problem),
        }
    }

    fn device(&self, place: &Place<'_>, value: Value) -> Result<DeviceIndex, FormatError> {
        match value {
            Value::Int(n) => match u8::try_from(n) {
                Ok(n) => Ok(DeviceIndex(n)),
                Err(_) => place.fail(format!("is {n}; devices are 0 to 255")),
            },
            _ => self.problem(place, Problem::Kind("a whole number", value)),
        }
    }

    fn boolean(&self, place: &Place<'_>, value: Value) -> Result<bool, FormatError> {
        match value {
            Value::Bool(flag) => Ok(flag),
            Value::Int(n @ (0 | 1)) => Ok(n == 1),
            _ => self.problem(place, Problem::Kind("a bool", value)),
        }
    }

    fn segments(&mut self, place: &Place<'_>, value: Value) -> Result<Vec<Segment>, FormatError> {
        let items = self.take_list(place, value)?;
        let mut segments = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            segments.push(self.segment(&Place::Index(place, index), item)?);
        }
        apart(place, &segments)?;
        Ok(segments)
    }

    fn segment(&mut self, place: &Place<'_>, value: Value) -> Result<Segment, FormatError> {
        self.once(place, value)?;
        let view = self.view(place, value, "segment", "a segment", SEGMENT)?;
        self.seen.segment = self.seen.segment.union(view.seen);
        let device =
            self.device(&Place::Key(place, Key::Device), self.need(place, &view, Key::Device)?)?;
        let start = self.need(place, &view, Key::Address)?;
        let start_place = Place::Key(place, Key::Address);
        let address = match rows::addr(start) {
            Ok(address) if address.0 < 1 << 63 => address,
            Ok(address) => return start_place.fail(format!("is {address}; too large")),
            Err(problem) => return self.problem(&start_place, problem),
        };
        let total_size = self.size(place, &view, Key::TotalSize)?;
        let stream = match view.get(Key::Stream).map(rows::stream).transpose() {
            Ok(stream) => stream.unwrap_or_default(),
            Err(problem) => return self.problem(&Place::Key(place, Key::Stream), problem),
        };
        let segment_type = self.segment_type(place, &view)?;
        let pool_id = self.segment_pool(place, &view)?;
        let is_expandable = match view.get(Key::IsExpandable) {
            Some(flag) => Some(self.boolean(&Place::Key(place, Key::IsExpandable), flag)?),
            None => None,
        };
        let stack = self.stack(place, &view)?;
        let blocks = self.need(place, &view, Key::Blocks)?;
        let span = Span::new(address, total_size);
        let blocks = self.blocks(&Place::Key(place, Key::Blocks), blocks, span)?;
        Ok(Segment {
            device,
            address,
            total_size,
            allocated_size: self.optional_size(place, &view, Key::AllocatedSize)?,
            active_size: self.optional_size(place, &view, Key::ActiveSize)?,
            requested_size: self.optional_size(place, &view, Key::RequestedSize)?,
            stream,
            segment_type,
            pool_id,
            is_expandable,
            stack,
            blocks,
        })
    }

    fn segment_type(&self, place: &Place<'_>, view: &View) -> Result<SegmentType, FormatError> {
        let value = self.need(place, view, Key::SegmentType)?;
        let place = Place::Key(place, Key::SegmentType);
        let Value::Text(id) = value else {
            return self.problem(&place, Problem::Kind("text", value));
        };
        match self.heap.strings.get(id) {
            "small" => Ok(SegmentType::Small),
            "large" => Ok(SegmentType::Large),
            other => place.fail(format!("is '{}'; expected 'small' or 'large'", short(other))),
        }
    }

    fn segment_pool(
        &mut self,
        place: &Place<'_>,
        view: &View,
    ) -> Result<Option<PoolId>, FormatError> {
        let Some(value) = view.get(Key::SegmentPoolId) else { return Ok(None) };
        match self.heap.pool_of(value) {
            Ok(Some(pool)) => Ok(Some(self.heap.pools[pool.index()])),
            _ => self.problem(
                &Place::Key(place, Key::SegmentPoolId),
                Problem::Kind("a pair of numbers", value),
            ),
        }
    }

    /// The stack of a segment or block: none where its list of frames is empty.
    fn stack(&mut self, place: &Place<'_>, view: &View) -> Result<Option<StackId>, FormatError> {
        let Some(value) = view.get(Key::Frames) else { return Ok(None) };
        match self.heap.context(value) {
            Ok(Some(context)) => {
                let stack = self.heap.contexts[context.index()];
                Ok(Some(stack).filter(|&stack| !self.heap.stacks.get(stack).is_empty()))
            }
            _ => self
                .problem(&Place::Key(place, Key::Frames), Problem::Kind("a list of frames", value)),
        }
    }

    fn blocks(
        &mut self,
        place: &Place<'_>,
        value: Value,
        segment: Span,
    ) -> Result<Vec<Block>, FormatError> {
        let items = self.take_list(place, value)?;
        let mut blocks = Vec::with_capacity(items.len());
        let mut next = segment.start;
        for (index, item) in items.into_iter().enumerate() {
            let place = Place::Index(place, index);
            let block = self.block(&place, item, next)?;
            if block.address < next {
                let over = next - block.address;
                return place.fail(format!(
                    "the block at {} overlaps the one before it by {} bytes",
                    block.address, over.0
                ));
            }
            if block.address > next {
                let gap = block.address - next;
                return place.fail(format!(
                    "the block at {} leaves a gap of {} bytes; blocks tile their segment",
                    block.address, gap.0
                ));
            }
            next = match block.address.0.checked_add(block.size.0) {
                Some(next) if next < 1 << 63 => Addr(next),
                _ => return place.fail("the block ends beyond every address"),
            };
            blocks.push(block);
        }
        let sum = next - segment.start;
        if sum != segment.size {
            return place.fail(format!(
                "the blocks of the segment at {} add up to {} bytes, but its total_size is {}; \
                 this is no state of an allocator",
                segment.start, sum.0, segment.size.0
            ));
        }
        Ok(blocks)
    }

    fn block(&mut self, place: &Place<'_>, value: Value, next: Addr) -> Result<Block, FormatError> {
        let view = self.view(place, value, "block", "a block", BLOCK)?;
        self.seen.block = self.seen.block.union(view.seen);
        let address = match view.get(Key::Address).map(rows::addr).transpose() {
            Ok(address) => address.unwrap_or(next),
            Err(problem) => return self.problem(&Place::Key(place, Key::Address), problem),
        };
        let size = self.size(place, &view, Key::Size)?;
        if size == Bytes::ZERO {
            return Place::Key(place, Key::Size).fail("is 0; a block holds at least one byte");
        }
        let state = self.state(place, &view)?;
        let mut requested_size = self.optional_size(place, &view, Key::RequestedSize)?;
        let mut stack = self.stack(place, &view)?;
        if let Some(history) = view.get(Key::History) {
            let place = Place::Key(place, Key::History);
            let Some(items) = self.heap.items(history) else {
                return self.problem(&place, Problem::Kind("a list", history));
            };
            // Newest first: the rest is about earlier users of the block.
            if let Some(&newest) = items.first() {
                let place = Place::Index(&place, 0);
                let view = self.view(&place, newest, "history", "a history entry", HISTORY)?;
                let real = self.optional_size(&place, &view, Key::RealSize)?;
                requested_size = requested_size.or(real);
                stack = self.stack(&place, &view)?;
            }
        }
        Ok(Block { address, size, requested_size, state, stack })
    }

    fn state(&self, place: &Place<'_>, view: &View) -> Result<BlockState, FormatError> {
        let value = self.need(place, view, Key::State)?;
        let place = Place::Key(place, Key::State);
        let Value::Text(id) = value else {
            return self.problem(&place, Problem::Kind("text", value));
        };
        match self.heap.strings.get(id) {
            "active_allocated" => Ok(BlockState::ActiveAllocated),
            "active_pending_free" | "active_awaiting_free" => Ok(BlockState::ActivePendingFree),
            "inactive" => Ok(BlockState::Inactive),
            other => place.fail(format!(
                "is '{}'; expected active_allocated, active_pending_free or inactive",
                short(other)
            )),
        }
    }

    fn traces(&mut self, place: &Place<'_>, value: Value) -> Result<Vec<Vec<Entry>>, FormatError> {
        let devices = self.take_list(place, value)?;
        if devices.len() > DEVICES {
            return place.fail(format!("has {} devices; at most {DEVICES}", devices.len()));
        }
        let problems: HashMap<u32, (Key, Problem)> = std::mem::take(&mut self.heap.rows.problems)
            .into_iter()
            .rev()
            .map(|(row, key, problem)| (row, (key, problem)))
            .collect();
        let count = devices.len();
        let mut traces = Vec::with_capacity(count);
        let mut rows = Vec::new();
        for (device, list) in devices.into_iter().enumerate() {
            let place = Place::Index(place, device);
            rows.clear();
            self.trace_rows(&place, list, &problems, &mut rows)?;
            traces.push(self.take_rows(&rows, device + 1 == count));
        }
        self.seen.entry = self.heap.rows.seen;
        for (_, key) in std::mem::take(&mut self.heap.rows.unknown) {
            self.note("trace entry", key);
        }
        Ok(traces)
    }

    fn trace_rows(
        &mut self,
        place: &Place<'_>,
        list: Value,
        problems: &HashMap<u32, (Key, Problem)>,
        rows: &mut Vec<u32>,
    ) -> Result<(), FormatError> {
        for (index, item) in self.take_list(place, list)?.into_iter().enumerate() {
            let place = Place::Index(place, index);
            let row = match self.heap.as_row(item) {
                Ok(Some(row)) => row,
                _ => {
                    return place.fail(format!("is {}; expected a trace entry", item.kind()));
                }
            };
            if let Some(&(key, problem)) = problems.get(&row) {
                return self.problem(&Place::Key(&place, key), problem);
            }
            // A dict that became a row only now reports its problems now.
            if let Some(&(late, key, problem)) = self.heap.rows.problems.last()
                && late == row
            {
                return self.problem(&Place::Key(&place, key), problem);
            }
            if let Some(key) = self.heap.rows.missing(row) {
                return place.fail(format!("has no key '{}'", key.name()));
            }
            rows.push(row);
        }
        Ok(())
    }

    /// The entries of these rows. In real files they are all rows, or a run of them, in order.
    /// `last`: no other trace can ask for them.
    fn take_rows(&mut self, rows: &[u32], last: bool) -> Vec<Entry> {
        let in_order = rows.iter().zip(0u32..).all(|(&row, index)| row == index);
        if in_order && rows.len() == self.heap.rows.len() && last {
            return std::mem::take(&mut self.heap.rows.entries);
        }
        rows.iter().map(|&row| self.heap.entry(row)).collect()
    }

    fn annotations(
        &mut self,
        place: &Place<'_>,
        value: Value,
    ) -> Result<Vec<Annotation>, FormatError> {
        let items = self.take_list(place, value)?;
        let mut annotations = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let place = Place::Index(place, index);
            let view = self.view(&place, item, "annotation", "an annotation", ANNOTATION)?;
            let text = |key| match view.get(key) {
                Some(Value::Text(id)) => Some(id),
                _ => None,
            };
            let stage = text(Key::Stage).and_then(|id| match self.heap.strings.get(id) {
                "START" => Some(Stage::Start),
                "END" => Some(Stage::End),
                _ => None,
            });
            let whole = |key| match view.get(key) {
                Some(Value::Int(n)) => Some(n),
                _ => None,
            };
            annotations.push(Annotation {
                name: text(Key::Name),
                stage,
                device: whole(Key::Device).and_then(|n| u8::try_from(n).ok()).map(DeviceIndex),
                time_us: whole(Key::TimeUs),
            });
        }
        Ok(annotations)
    }

    fn settings(&mut self, place: &Place<'_>, value: Value) -> Result<Settings, FormatError> {
        let view = self.view(place, value, "setting", "a dict of settings", SETTINGS)?;
        self.seen.settings = view.seen;
        let whole = |key: Key| match view.get(key) {
            None => Ok(None),
            Some(Value::Int(n)) => Ok(Some(n)),
            // 2^64 - 1 is -1 without its sign.
            Some(Value::Big(n)) => Ok(Some(n.cast_signed())),
            Some(value) => {
                self.problem(&Place::Key(place, key), Problem::Kind("a whole number", value))
            }
        };
        let flag = |key: Key| match view.get(key) {
            None => Ok(None),
            Some(value) => self.boolean(&Place::Key(place, key), value).map(Some),
        };
        let conf = match view.get(Key::Conf) {
            None => None,
            Some(Value::Text(id)) => Some(self.heap.strings.get(id).to_owned()),
            Some(value) => {
                return self.problem(&Place::Key(place, Key::Conf), Problem::Kind("text", value));
            }
        };
        let threshold = Key::GarbageCollectionThreshold;
        let garbage_collection_threshold = match view.get(threshold) {
            None => None,
            Some(Value::Float(x)) => Some(x),
            Some(Value::Int(n)) if (0..=1).contains(&n) => Some(if n == 0 { 0.0 } else { 1.0 }),
            Some(value) => {
                let expected = Problem::Kind("a float", value);
                return self.problem(&Place::Key(place, threshold), expected);
            }
        };
        Ok(Settings {
            conf,
            max_split_size: whole(Key::MaxSplitSize)?,
            garbage_collection_threshold,
            expandable_segments: flag(Key::ExpandableSegments)?,
            roundup_power2_divisions: self.divisions(place, &view)?,
            release_lock_on_cudamalloc: flag(Key::ReleaseLockOnCudamalloc)?,
            pinned_num_register_threads: whole(Key::PinnedNumRegisterThreads)?,
            pinned_use_cuda_host_register: flag(Key::PinnedUseCudaHostRegister)?,
            graph_capture_record_stream_reuse: flag(Key::GraphCaptureRecordStreamReuse)?,
            max_round_threshold: whole(Key::MaxRoundThreshold)?,
            max_cached_size: whole(Key::MaxCachedSize)?,
        })
    }

    /// The divisions by the MiB boundary that is their key; boundaries that are absent have none.
    fn divisions(&self, place: &Place<'_>, view: &View) -> Result<Option<[u64; 16]>, FormatError> {
        let Some(value) = view.get(Key::RoundupPower2Divisions) else { return Ok(None) };
        let place = Place::Key(place, Key::RoundupPower2Divisions);
        let pairs = match value {
            Value::Dict(index) => match self.heap.dicts[index as usize] {
                DictSlot::Open(open) => &self.heap.open_dicts[open as usize][..],
                _ => &[],
            },
            _ => return self.problem(&place, Problem::Kind("a dict", value)),
        };
        let mut divisions = [0; 16];
        for &(key, value) in pairs {
            let boundary: Option<u32> = match key {
                Value::Text(id) => self.heap.strings.get(id).parse().ok(),
                _ => None,
            };
            let index = boundary.filter(|n| n.is_power_of_two() && *n <= 1 << 15);
            match (index, value.unsigned()) {
                (Some(boundary), Some(count)) => {
                    divisions[boundary.trailing_zeros() as usize] = count;
                }
                _ => return place.fail("expected divisions by \"1\", \"2\", \"4\" to \"32768\""),
            }
        }
        Ok(Some(divisions))
    }
}

/// No two segments of a device share an address.
fn apart(place: &Place<'_>, segments: &[Segment]) -> Result<(), FormatError> {
    let mut order: Vec<usize> = (0..segments.len()).collect();
    order.sort_by_key(|&index| (segments[index].device, segments[index].address));
    for pair in order.windows(2) {
        let (a, b) = (&segments[pair[0]], &segments[pair[1]]);
        let (left, right) =
            (Span::new(a.address, a.total_size), Span::new(b.address, b.total_size));
        if a.device == b.device && left.overlaps(right) {
            return Place::Index(place, pair[1]).fail(format!(
                "the segment at {} overlaps the one at {} (cuda:{})",
                b.address, a.address, a.device
            ));
        }
    }
    Ok(())
}
