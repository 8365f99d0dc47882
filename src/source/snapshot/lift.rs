//! From what the pickle built to a [`Snapshot`]: the names and types of the format, and the sums
//! that must hold. Everything is visited at most once, so sharing in the file costs nothing.

use std::{collections::HashSet, fmt, ops::Range};

use super::{
    fault::short,
    heap::{DictSlot, Heap, ListSlot, Value},
    keys::{Key, KeySet},
    raw::{Action, Entry, Format, KeysSeen, Snapshot},
    rows::{self, Problem},
};
use crate::base::{Bytes, DeviceIndex, Id};

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
    pub(super) fn fail<T>(&self, what: impl Into<String>) -> Result<T, FormatError> {
        Err(FormatError { place: self.to_string(), what: what.into() })
    }
}

/// Most keys of a dict that is searched.
const KEYS: usize = 256;

/// The keys of one dict that are known, and the rest noted.
pub(super) struct View {
    pairs: Vec<(Key, Value)>,
    pub(super) seen: KeySet,
}

impl View {
    /// The value of a key. As in Python, the last one counts; None is as good as absent.
    pub(super) fn get(&self, key: Key) -> Option<Value> {
        let pair = self.pairs.iter().rfind(|(other, _)| *other == key)?;
        Some(pair.1).filter(|value| !matches!(value, Value::None))
    }
}

pub(super) struct Lift {
    pub(super) heap: Heap,
    pub(super) seen: KeysSeen,
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
    let is_annotation = |entry: &Entry| entry.action == Action::Annotate;
    lift.seen.annotate =
        lift.heap.rows.has_annotations && traces.iter().flatten().any(is_annotation);
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
        sites: heap.rows.sites.all,
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
    pub(super) fn view(
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
            None if matches!(value, Value::Row(_)) => {
                return place.fail(format!("is a trace entry; expected {expected}"));
            }
            Some(DictSlot::Frame(_) | DictSlot::Known(_)) => {
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
    pub(super) fn note(&mut self, level: &'static str, key: Value) {
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

    pub(super) fn need(
        &self,
        place: &Place<'_>,
        view: &View,
        key: Key,
    ) -> Result<Value, FormatError> {
        match view.get(key) {
            Some(value) => Ok(value),
            None => place.fail(format!("has no key '{}'", key.name())),
        }
    }

    /// A list that was not taken before, to be gone through.
    pub(super) fn take_list(
        &mut self,
        place: &Place<'_>,
        value: Value,
    ) -> Result<Vec<Value>, FormatError> {
        if !matches!(value, Value::List(_) | Value::Context(_)) {
            return place.fail(format!("is {}; expected a list", value.kind()));
        }
        // What a list of trace entries holds is asked for, too.
        if self.heap.items(value).is_none() {
            return place.fail("is a list of stack frames; expected another list");
        }
        let Value::List(index) = value else { return Ok(Vec::new()) };
        match self.heap.lists[index as usize] {
            ListSlot::Open(open) => {
                self.take_once(place, index)?;
                Ok(std::mem::take(&mut self.heap.open_lists[open as usize]))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The rows of a list that holds trace entries one after the other, as all real ones do.
    pub(super) fn take_run(
        &mut self,
        place: &Place<'_>,
        value: Value,
    ) -> Result<Option<Range<u32>>, FormatError> {
        let Value::List(index) = value else { return Ok(None) };
        let ListSlot::Run(run) = self.heap.lists[index as usize] else { return Ok(None) };
        self.take_once(place, index)?;
        Ok(Some(self.heap.runs[run as usize].clone()))
    }

    fn take_once(&mut self, place: &Place<'_>, index: u32) -> Result<(), FormatError> {
        if self.taken_lists.insert(index) {
            return Ok(());
        }
        place.fail("is a list that stands elsewhere in the snapshot too")
    }

    pub(super) fn once(&mut self, place: &Place<'_>, value: Value) -> Result<(), FormatError> {
        match value {
            Value::Dict(index) if !self.taken_dicts.insert(index) => {
                place.fail("is an object that stands elsewhere in the snapshot too")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn problem<T>(&self, place: &Place<'_>, problem: Problem) -> Result<T, FormatError> {
        place.fail(match problem {
            Problem::Kind(expected, got) => format!("is {}; expected {expected}", got.kind()),
            Problem::Negative(n) => format!("is {n}; it cannot be negative"),
            Problem::TooBig(n) => format!("is {n}; sizes are below 2^60"),
            Problem::TooHigh(n) => format!("is {n:#x}; addresses are below 2^63"),
            Problem::Action(id) => {
                let name = short(self.heap.strings.get(id));
                format!("'{name}' is no action that an allocator records")
            }
        })
    }

    pub(super) fn size(
        &self,
        place: &Place<'_>,
        view: &View,
        key: Key,
    ) -> Result<Bytes, FormatError> {
        match self.optional_size(place, view, key)? {
            Some(size) => Ok(size),
            None => self.need(place, view, key).map(|_| Bytes(0)),
        }
    }

    pub(super) fn optional_size(
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

    pub(super) fn device(
        &self,
        place: &Place<'_>,
        value: Value,
    ) -> Result<DeviceIndex, FormatError> {
        match value {
            Value::Int(n) => match u8::try_from(n) {
                Ok(n) => Ok(DeviceIndex(n)),
                Err(_) => place.fail(format!("is {n}; devices are 0 to 255")),
            },
            _ => self.problem(place, Problem::Kind("a whole number", value)),
        }
    }

    pub(super) fn boolean(&self, place: &Place<'_>, value: Value) -> Result<bool, FormatError> {
        match value {
            Value::Bool(flag) => Ok(flag),
            Value::Int(n @ (0 | 1)) => Ok(n == 1),
            _ => self.problem(place, Problem::Kind("a bool", value)),
        }
    }
}
