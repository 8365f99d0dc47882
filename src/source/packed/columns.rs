//! What stands in a packed file: plain columns of numbers, see [`super`].
//!
//! A trace is what was asked and what was recorded, and nearly all of the latter follows from the
//! former: a free shows the address and size of its allocation twice. So an operation says first
//! whether its events are those that are expected of it, and only others are written out.

use bitcode::{Decode, Encode};

/// A whole file.
#[derive(Debug, Encode, Decode)]
pub(super) struct File {
    pub overview: Overview,
    pub traces: Vec<Trace>,
}

#[derive(Debug, Encode, Decode)]
pub(super) struct Overview {
    /// Minor releases.
    pub releases: (u8, u8),
    pub frames: u64,
    pub stacks: u64,
    pub has_settings: bool,
    pub warnings: Vec<String>,
    pub devices: Vec<Device>,
}

#[derive(Debug, Encode, Decode)]
pub(super) struct Device {
    pub layout: Vec<Segment>,
    pub entries: Vec<u64>,
    pub duration_us: Option<i64>,
}

#[derive(Debug, Encode, Decode)]
pub(super) struct Segment {
    pub addr: u64,
    pub stream: u64,
    pub pool: (u64, u64),
    pub is_small: bool,
    pub is_expandable: bool,
    pub blocks: Vec<Block>,
}

#[derive(Debug, Encode, Decode)]
pub(super) struct Block {
    pub size: u64,
    pub requested: u64,
    /// Index of the state: allocated, pending, inactive.
    pub state: u8,
}

#[derive(Debug, Encode, Decode)]
pub(super) struct Trace {
    pub device: u8,
    /// Handle and id.
    pub streams: Vec<(u64, u64)>,
    pub pools: Vec<(u64, u64)>,
    pub controls: Vec<Control>,
    pub start: Vec<Segment>,
    pub ops: Ops,
    pub events: Events,
    pub recorded: Recorded,
}

/// The controls that a history implies.
#[derive(Debug, Encode, Decode)]
pub(super) enum Control {
    Snapshot,
    EmptyPool(u64, u64),
    PoolRelease(u64, u64),
}

/// The operations. Allocations are numbered in their order, behind the blocks of the start.
#[derive(Debug, Default, Encode, Decode)]
pub(super) struct Ops {
    /// See [`super::kind`].
    pub kinds: Vec<u8>,
    /// Of each allocation.
    pub sizes: Vec<u64>,
    pub streams: Vec<u16>,
    /// 0, or the pool's index and 1.
    pub pools: Vec<u16>,
    /// Of each allocation whose event is the expected one.
    pub addrs: Vec<u64>,
    /// Of each other operation that names an allocation: how many allocations ago it was.
    pub ages: Vec<u32>,
    /// Of each operation whose events are written out.
    pub counts: Vec<u32>,
}

/// Events that are written out.
#[derive(Debug, Default, Encode, Decode)]
pub(super) struct Events {
    pub actions: Vec<u8>,
    pub addrs: Vec<u64>,
    pub sizes: Vec<u64>,
    pub streams: Vec<u64>,
    pub pools: Vec<(u64, u64)>,
}

#[derive(Debug, Encode, Decode)]
pub(super) struct Recorded {
    pub end: Vec<Segment>,
    pub events_name_pools: bool,
    pub releases: (u8, u8),
    pub settings: Option<Settings>,
    pub guessed_sizes: Vec<u32>,
    pub completions: Vec<u32>,
    /// Stream, first address, size.
    pub chains: Vec<(u64, u64, u64)>,
    pub maybe_empty: Vec<u32>,
    pub vanished: Vec<Vanished>,
    pub notes: Vec<String>,
}

#[derive(Debug, Encode, Decode)]
pub(super) struct Settings {
    pub conf: String,
    pub max_split_size: Option<u64>,
    pub garbage_collection_threshold: f64,
    pub expandable_segments: bool,
    pub roundup_power2_divisions: Option<Vec<u64>>,
}

#[derive(Debug, Encode, Decode)]
pub(super) struct Vanished {
    pub stream: u16,
    pub start: Option<u32>,
    pub made_by: u32,
    pub freed_by: u32,
    pub allocs: Vec<u32>,
}
