//! [`Case`]: a script of operations with everything the real allocator answered. The golden cases.

use super::{Action, Control, Event, EventMode, Layout, Stream};
use crate::base::{Addr, Bytes, DeviceIndex, PoolId, Release, StreamId};

/// Who chose the addresses of a case's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseAddresses {
    /// Rising, never used again.
    Rising,
    /// Falling, never used again.
    Falling,
    /// The lowest hole that fits.
    FirstFit,
    /// From a seed.
    Random(u64),
}

/// Under what a case was recorded.
#[derive(Clone, Debug)]
pub struct CaseSetup {
    /// Its name.
    pub name: String,
    /// The release that ran it.
    pub release: Release,
    /// `PYTORCH_CUDA_ALLOC_CONF` and its siblings, by name.
    pub settings: Vec<(String, String)>,
    /// Number of devices, all alike.
    pub devices: u8,
    /// Capacity of each.
    pub total: Bytes,
    /// What the process's context takes.
    pub context: Bytes,
    /// How addresses were chosen.
    pub addresses: CaseAddresses,
    /// When events were done.
    pub events: EventMode,
    /// Whether memory was cached.
    pub caching: bool,
    /// The streams; the first is the default stream.
    pub streams: Vec<Stream>,
}

/// One step of a case's script.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// Allocate under this name.
    Alloc(i64, Bytes, StreamId),
    /// Free what has this name.
    Free(i64),
    /// It is also used on another stream.
    RecordStream(i64, StreamId),
    /// `empty_cache`, of all devices.
    EmptyCache,
    /// A management call.
    Control(Control),
    /// From now on the steps are of this device.
    Device(DeviceIndex),
    /// A question that changes nothing.
    Query(Query),
}

/// A question to the allocator.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// `memory_stats`.
    Stats,
    /// `memory_snapshot`, of everything or of one pool.
    Snapshot(Option<PoolId>),
    /// `cudaMemGetInfo`: free and total bytes.
    MemInfo,
    /// The largest block that could be had.
    CacheInfo,
    /// The segment that holds an allocation: address and size.
    Base(i64),
    /// The memory fraction.
    Fraction,
    /// The settings in force.
    Config,
    /// How many owners a pool has.
    PoolUseCount(PoolId),
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Nothing, as for most calls.
    Nothing,
    /// An address.
    Addr(Addr),
    /// A number.
    Number(f64),
    /// Two numbers.
    Pair(u64, u64),
    /// Statistics, as the recording gives them.
    Stats(serde_json::Value),
    /// A snapshot.
    Snapshot(Vec<(DeviceIndex, Layout)>),
    /// Settings, as the recording gives them.
    Config(serde_json::Value),
    /// An out-of-memory error with its text.
    Oom(String),
    /// Another error with its text.
    Error(String),
}

/// One step and what came of it.
#[derive(Clone, Debug)]
pub struct CaseStep {
    /// Its number in the recording.
    pub number: u64,
    /// Line in the file, from 1.
    pub line: u64,
    /// What was asked.
    pub asked: Asked,
    /// What was answered.
    pub answer: Answer,
    /// What happened, in order, by device.
    pub events: Vec<(DeviceIndex, Event)>,
    /// Whether the order of the events differs from run to run of the real allocator.
    pub is_unordered: bool,
}

/// A whole case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Under what it was recorded.
    pub setup: CaseSetup,
    /// The steps.
    pub steps: Vec<CaseStep>,
    /// Statistics of device 0 at the end, as the recording gives them.
    pub end_stats: serde_json::Value,
    /// Where everything lay at the end.
    pub end: Vec<(DeviceIndex, Layout)>,
}

impl Case {
    /// How many recorded events of that kind there are.
    pub fn count(&self, action: Action) -> u64 {
        let events = self.steps.iter().flat_map(|step| &step.events);
        events.filter(|(_, event)| event.action == action).count() as u64
    }
}
