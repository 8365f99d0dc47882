//! The keys of the JSON-lines format, version 1.

use serde::{Deserialize, Serialize};

use crate::{
    base::{Addr, Bytes, DeviceIndex, PoolId, StreamHandle, StreamId},
    trace::{BlockState, Stream},
};

pub(super) const FORMAT: &str = "fragsim-trace";
pub(super) const VERSION: u64 = 1;

/// What tells whether a line is a header that can be read.
#[derive(Deserialize)]
pub(super) struct Probe {
    pub format: String,
    pub version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub format: String,
    pub version: u64,
    #[serde(default)]
    pub device: DeviceIndex,
    #[serde(default = "default_streams")]
    pub streams: Vec<(StreamHandle, u64)>,
    #[serde(default)]
    pub pools: Vec<PoolId>,
    #[serde(default)]
    pub start: Vec<Segment>,
}

pub(super) fn default_streams() -> Vec<(StreamHandle, u64)> {
    vec![(Stream::DEFAULT.handle, Stream::DEFAULT.id)]
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Segment {
    pub addr: Addr,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "is_default")]
    pub expandable: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub stream: StreamId,
    #[serde(default, skip_serializing_if = "is_default")]
    pub pool: PoolId,
    pub blocks: Vec<Block>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Small,
    Large,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    pub size: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    ActiveAllocated,
    #[serde(alias = "active_awaiting_free")]
    ActivePendingFree,
    Inactive,
}

impl From<BlockState> for State {
    fn from(state: BlockState) -> Self {
        match state {
            BlockState::ActiveAllocated => Self::ActiveAllocated,
            BlockState::ActivePendingFree => Self::ActivePendingFree,
            BlockState::Inactive => Self::Inactive,
        }
    }
}

/// One line. Variants without keys have braces all the same: only so does serde refuse unknown keys.
#[derive(Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    Alloc {
        id: u64,
        size: Bytes,
        #[serde(default, skip_serializing_if = "is_default")]
        stream: StreamId,
        #[serde(default, skip_serializing_if = "is_default")]
        pool: PoolId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    Free {
        id: u64,
        #[serde(default, skip_serializing_if = "is_default")]
        pending: bool,
    },
    Completed {
        id: u64,
    },
    RecordStream {
        id: u64,
        stream: StreamId,
    },
    EmptyCache {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<PoolId>,
    },
    SetFraction {
        fraction: f64,
    },
    Settings {
        text: String,
    },
    PoolCreate {
        pool: PoolId,
    },
    PoolBegin {
        pool: PoolId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<StreamId>,
    },
    PoolEnd {
        pool: PoolId,
    },
    PoolRelease {
        pool: PoolId,
    },
    UseOnOom {
        pool: PoolId,
        on: bool,
    },
    NoSplit {
        pool: PoolId,
    },
    CaptureBegin {
        stream: StreamId,
    },
    CaptureEnd {
        stream: StreamId,
    },
    Events {
        mode: Mode,
    },
    Complete {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<StreamId>,
    },
    External {
        size: Bytes,
    },
    Total {
        size: Bytes,
    },
    ResetPeak {},
    ResetAccumulated {},
    Snapshot {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<PoolId>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    Ready,
    Manual,
    Polls(u32),
}
