//! Golden cases: JSON lines of operations and everything the real allocator answered.
//!
//! The first line says under what the case was recorded, each further line is one operation, the
//! last one is the state at the end. The format is described in `traces/README.md`.

use std::io::BufRead;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    base::{Addr, Bytes, DeviceIndex, ParseReleaseError, PoolId, StreamHandle, StreamId},
    trace::{
        Action, Answer, Asked, BlockLayout, BlockState, Case, CaseAddresses, CaseSetup, CaseStep,
        Control, Event, EventMode, Layout, Query, SegmentLayout, Stream,
    },
};

/// Why a file is not a golden case. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The file cannot be read.
    #[error("line {line}: cannot be read")]
    Read {
        /// The line.
        line: u64,
        /// Why.
        source: std::io::Error,
    },
    /// Not JSON, or not of this shape.
    #[error("line {line}, column {column}: {what}")]
    Json {
        /// The line.
        line: u64,
        /// The column.
        column: usize,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A release that is not modelled.
    #[error("line 1: {0}")]
    Release(#[from] ParseReleaseError),
    /// Something else does not make sense.
    #[error("line {line}: {what}")]
    Wrong {
        /// The line.
        line: u64,
        /// What.
        what: String,
    },
    /// The last line is missing.
    #[error("the file ends after line {line} without its final line: it was cut; copy it again")]
    Cut {
        /// The last line there is.
        line: u64,
    },
}

/// What the JSON reader says, without its own count of lines: it sees one at a time.
fn json(line: u64, error: &serde_json::Error) -> GoldenError {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let mut what = text.strip_suffix(&place).unwrap_or(&text).to_owned();
    if error.is_eof() {
        what = "the line ends in the middle: the file was cut; copy it again".into();
    }
    GoldenError::Json { line, column: error.column(), what }
}

fn wrong(line: u64, what: impl Into<String>) -> GoldenError {
    GoldenError::Wrong { line, what: what.into() }
}

#[derive(Deserialize)]
struct Head {
    case: String,
    env: serde_json::Map<String, Value>,
    torch: String,
    devices: u8,
    total: u64,
    context: u64,
    streams: Vec<(u64, u64)>,
    #[serde(default)]
    unordered: Vec<u64>,
}

#[derive(Deserialize)]
struct Step {
    i: u64,
    op: Vec<Value>,
    #[serde(default)]
    r: Value,
    oom: Option<String>,
    err: Option<String>,
    ev: Vec<RawEvent>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawEvent {
    Plain(String, u64, u64, u64),
    Pool(String, u64, u64, u64, (u64, u64)),
    Device(String, u64, u64, u64, (u64, u64), u8),
    Meta(String, u64, u64, u64, (u64, u64), u8, serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct RawSegment {
    device: u8,
    address: u64,
    stream: u64,
    is_large: bool,
    is_expandable: bool,
    pool_id: (u64, u64),
    blocks: Vec<(u64, u64, String, i64)>,
}

#[derive(Deserialize)]
struct End {
    #[serde(default)]
    r#final: bool,
    segments: Vec<RawSegment>,
    stats: Value,
}

/// Reads a golden case.
///
/// # Errors
/// When it is none; the line is named.
pub fn read(reader: impl BufRead) -> Result<Case, GoldenError> {
    let mut lines = reader.lines().zip(1u64..);
    let (first, _) = lines.next().ok_or(GoldenError::Cut { line: 0 })?;
    let first = first.map_err(|source| GoldenError::Read { line: 1, source })?;
    let head: Head = serde_json::from_str(&first).map_err(|error| json(1, &error))?;
    let mut setup = setup(&head)?;
    let mut steps = Vec::new();
    let mut last = 1;
    for (text, line) in lines {
        let text = text.map_err(|source| GoldenError::Read { line, source })?;
        last = line;
        if text.is_empty() {
            continue;
        }
        if text.starts_with("{\"final\"") {
            let end: End = serde_json::from_str(&text).map_err(|error| json(line, &error))?;
            if !end.r#final {
                return Err(wrong(line, "a final line that says it is not final"));
            }
            let layouts = layouts(&end.segments, line)?;
            return Ok(Case { setup, steps, end_stats: end.stats, end: layouts });
        }
        let step: Step = serde_json::from_str(&text).map_err(|error| json(line, &error))?;
        let step = convert(step, line, &head)?;
        name_streams(&step, &mut setup.streams);
        steps.push(step);
    }
    Err(GoldenError::Cut { line: last })
}

fn setup(head: &Head) -> Result<CaseSetup, GoldenError> {
    let env = |key: &str| head.env.get(key).and_then(Value::as_str);
    let addresses = match env("FAKECUDA_ADDR").unwrap_or("bump") {
        "bump" => CaseAddresses::Rising,
        "down" => CaseAddresses::Falling,
        "firstfit" => CaseAddresses::FirstFit,
        "rand" => {
            let seed = env("FAKECUDA_SEED").unwrap_or("1").parse();
            CaseAddresses::Random(seed.map_err(|_| wrong(1, "FAKECUDA_SEED is not a number"))?)
        }
        other => return Err(wrong(1, format!("unknown address policy '{other}'"))),
    };
    let settings = head.env.iter().filter(|(key, _)| key.ends_with("ALLOC_CONF"));
    let settings = settings
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    Ok(CaseSetup {
        name: head.case.clone(),
        release: head.torch.parse()?,
        settings,
        devices: head.devices,
        total: Bytes(head.total),
        context: Bytes(head.context),
        addresses,
        events: event_mode(env("FAKECUDA_EVENTS").unwrap_or("ready"), 1)?,
        caching: env("PYTORCH_NO_CUDA_MEMORY_CACHING").is_none(),
        streams: head
            .streams
            .iter()
            .map(|(handle, id)| Stream { handle: StreamHandle(*handle), id: *id })
            .collect(),
    })
}

fn event_mode(text: &str, line: u64) -> Result<EventMode, GoldenError> {
    match text {
        "ready" => Ok(EventMode::Ready),
        "manual" => Ok(EventMode::Manual),
        polls => match polls.parse() {
            Ok(polls) => Ok(EventMode::Polls(polls)),
            Err(_) => Err(wrong(line, format!("unknown event mode '{polls}'"))),
        },
    }
}

/// Streams that the first line does not list (those of a second device) get the handle that the
/// first event on them shows.
fn name_streams(step: &CaseStep, streams: &mut Vec<Stream>) {
    let (Asked::Alloc(_, _, used) | Asked::RecordStream(_, used)) = step.asked else { return };
    while streams.len() <= usize::from(used.0) {
        let mut stream = Stream::numbered(StreamId::from_index(streams.len()));
        if let (Asked::Alloc(..), Some((_, event))) = (&step.asked, step.events.last()) {
            stream.handle = event.stream;
        }
        streams.push(stream);
    }
}

/// The words of one operation.
struct Words<'a> {
    words: &'a [Value],
    line: u64,
}

impl Words<'_> {
    const MAX_STREAMS: u16 = 1024;

    fn text(&self, i: usize) -> Result<String, GoldenError> {
        match self.words.get(i) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            _ => Err(wrong(self.line, format!("word {i} of the operation is missing"))),
        }
    }

    fn number<T: std::str::FromStr>(&self, i: usize) -> Result<T, GoldenError> {
        let text = self.text(i)?;
        text.parse().map_err(|_| wrong(self.line, format!("'{text}' is not a number here")))
    }

    fn stream(&self, i: usize) -> Result<StreamId, GoldenError> {
        if i >= self.words.len() {
            return Ok(StreamId(0));
        }
        let stream: u16 = self.number(i)?;
        if stream < Self::MAX_STREAMS {
            return Ok(StreamId(stream));
        }
        Err(wrong(
            self.line,
            format!("stream {stream} is beyond the {} of a case", Self::MAX_STREAMS),
        ))
    }

    fn optional_stream(&self, i: usize) -> Result<Option<StreamId>, GoldenError> {
        if i < self.words.len() { self.stream(i).map(Some) } else { Ok(None) }
    }

    fn pool(&self, i: usize) -> Result<PoolId, GoldenError> {
        Ok(PoolId(0, self.number(i)?))
    }

    fn optional_pool(&self, i: usize) -> Result<Option<PoolId>, GoldenError> {
        let pool = if i < self.words.len() { self.pool(i)? } else { PoolId::DEFAULT };
        Ok(pool.is_private().then_some(pool))
    }

    fn asked(&self) -> Result<Asked, GoldenError> {
        let control = |control| Ok(Asked::Control(control));
        let query = |query| Ok(Asked::Query(query));
        match self.text(0)?.as_str() {
            "a" => Ok(Asked::Alloc(self.number(1)?, Bytes(self.number(2)?), self.stream(3)?)),
            "f" => Ok(Asked::Free(self.number(1)?)),
            "rs" => Ok(Asked::RecordStream(self.number(1)?, self.stream(2)?)),
            "empty_cache" => match self.optional_pool(1)? {
                Some(pool) => control(Control::EmptyPool(pool)),
                None => Ok(Asked::EmptyCache),
            },
            "fraction" => control(Control::SetFraction(self.number(1)?)),
            "set" => {
                let text = if self.words.len() > 1 { self.text(1)? } else { String::new() };
                control(Control::Settings(text))
            }
            "events" => control(Control::Events(event_mode(&self.text(1)?, self.line)?)),
            "complete" => {
                let all = self.text(1)? == "all";
                control(Control::Complete(if all { None } else { Some(self.stream(1)?) }))
            }
            "pool_create" => control(Control::PoolCreate(self.pool(1)?)),
            "pool_begin" => control(Control::PoolBegin(self.pool(1)?, self.optional_stream(2)?)),
            "pool_end" => control(Control::PoolEnd(self.pool(1)?)),
            "pool_release" => control(Control::PoolRelease(self.pool(1)?)),
            "no_split" => control(Control::PoolNoSplit(self.pool(1)?)),
            "use_on_oom" => {
                control(Control::PoolUseOnOom(self.pool(1)?, self.number::<u8>(2)? != 0))
            }
            "capture_begin" => control(Control::CaptureBegin(self.stream(1)?)),
            "capture_end" => control(Control::CaptureEnd(self.stream(1)?)),
            "ext" => control(Control::External(Bytes(self.number(1)?))),
            "total" => control(Control::Total(Bytes(self.number(1)?))),
            "reset_peak" => control(Control::ResetPeak),
            "reset_accum" => control(Control::ResetAccumulated),
            "device" => Ok(Asked::Device(DeviceIndex(self.number(1)?))),
            "stats" => query(Query::Stats),
            "snapshot" => query(Query::Snapshot(self.optional_pool(1)?)),
            "mem_info" => query(Query::MemInfo),
            "cache_info" => query(Query::CacheInfo),
            "base" => query(Query::Base(self.number(1)?)),
            "get_fraction" => query(Query::Fraction),
            "config" => query(Query::Config),
            "pool_use_count" => query(Query::PoolUseCount(self.pool(1)?)),
            other => Err(wrong(self.line, format!("unknown operation '{other}'"))),
        }
    }
}

fn convert(step: Step, line: u64, head: &Head) -> Result<CaseStep, GoldenError> {
    let asked = Words { words: &step.op, line }.asked()?;
    let answer = match (step.oom, step.err) {
        (Some(text), _) => Answer::Oom(text),
        (None, Some(text)) => Answer::Error(text),
        (None, None) => answer(&asked, step.r, line)?,
    };
    let events = step.ev.into_iter().map(|raw| event(raw, line)).collect::<Result<_, _>>()?;
    let is_unordered = head.unordered.contains(&step.i);
    Ok(CaseStep { number: step.i, line, asked, answer, events, is_unordered })
}

fn answer(asked: &Asked, value: Value, line: u64) -> Result<Answer, GoldenError> {
    let number = || value.as_u64().ok_or_else(|| wrong(line, "'r' is not a whole number"));
    let json = |error: serde_json::Error| json(line, &error);
    Ok(match asked {
        Asked::Alloc(..) => Answer::Addr(Addr(number()?)),
        Asked::Query(Query::Stats) => Answer::Stats(value),
        Asked::Query(Query::Config) => Answer::Config(value),
        Asked::Query(Query::Snapshot(_)) => {
            let segments: Vec<RawSegment> = serde_json::from_value(value).map_err(json)?;
            Answer::Snapshot(layouts(&segments, line)?)
        }
        Asked::Query(Query::MemInfo | Query::Base(_)) => {
            let (a, b) = serde_json::from_value(value).map_err(json)?;
            Answer::Pair(a, b)
        }
        Asked::Query(Query::CacheInfo | Query::Fraction | Query::PoolUseCount(_)) => {
            Answer::Number(value.as_f64().ok_or_else(|| wrong(line, "'r' is not a number"))?)
        }
        _ => Answer::Nothing,
    })
}

fn event(raw: RawEvent, line: u64) -> Result<(DeviceIndex, Event), GoldenError> {
    let (name, addr, size, stream, pool, device) = match raw {
        RawEvent::Plain(name, addr, size, stream) => (name, addr, size, stream, (0, 0), 0),
        RawEvent::Pool(name, addr, size, stream, pool) => (name, addr, size, stream, pool, 0),
        RawEvent::Device(name, addr, size, stream, pool, device)
        | RawEvent::Meta(name, addr, size, stream, pool, device, _) => {
            (name, addr, size, stream, pool, device)
        }
    };
    let action =
        Action::from_name(&name).ok_or_else(|| wrong(line, format!("unknown event '{name}'")))?;
    let event = Event {
        action,
        addr: Addr(addr),
        size: Bytes(size),
        stream: StreamHandle(stream),
        pool: PoolId(pool.0, pool.1),
    };
    Ok((DeviceIndex(device), event))
}

/// The segments of each device that has any.
fn layouts(segments: &[RawSegment], line: u64) -> Result<Vec<(DeviceIndex, Layout)>, GoldenError> {
    let mut all: Vec<(DeviceIndex, Layout)> = Vec::new();
    for raw in segments {
        let device = DeviceIndex(raw.device);
        if all.last().is_none_or(|(last, _)| *last != device) {
            all.push((device, Layout::default()));
        }
        let blocks = raw.blocks.iter().map(|(size, requested, state, _)| {
            let state = match state.as_str() {
                "active_allocated" => BlockState::ActiveAllocated,
                "active_pending_free" => BlockState::ActivePendingFree,
                "inactive" => BlockState::Inactive,
                other => return Err(wrong(line, format!("unknown block state '{other}'"))),
            };
            Ok(BlockLayout { size: Bytes(*size), requested: Bytes(*requested), state })
        });
        let segment = SegmentLayout {
            addr: Addr(raw.address),
            stream: StreamHandle(raw.stream),
            pool: PoolId(raw.pool_id.0, raw.pool_id.1),
            is_small: !raw.is_large,
            is_expandable: raw.is_expandable,
            blocks: blocks.collect::<Result<_, _>>()?,
        };
        if let Some((_, layout)) = all.last_mut() {
            layout.segments.push(segment);
        }
    }
    Ok(all)
}
