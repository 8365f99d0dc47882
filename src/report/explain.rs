//! Why a request failed, for programs; [`super::explain_text`] is the same for people.

use serde::Serialize;

use crate::{
    base::{AllocId, Bytes},
    observe::{Fragmentation, Sample, Stretch},
    study::explain::{
        Arithmetic, BlockingSet, Change, Explanation, FreeRow, Held, Objective, Origin, Remedy,
        Route, Scene, Verdict,
    },
};

/// One explanation.
#[derive(Debug, Serialize)]
pub struct ExplainDocument {
    /// The file as given.
    pub file: String,
    /// The device.
    pub device: u8,
    /// The release whose rules were applied.
    pub torch: String,
    /// The settings, as a string that can be pasted.
    pub conf: String,
    /// Capacity in bytes; `null` where none was given or known.
    pub capacity: Option<u64>,
    /// The operation, counted from 0 among those of the program.
    pub op: u64,
    /// Where the request comes from.
    pub origin: Origin,
    /// What was asked, in bytes.
    pub requested_bytes: u64,
    /// The stream.
    pub stream: u16,
    /// Where it was asked; as the frames of a block.
    pub frames: Vec<String>,
    /// PyTorch's message; `null` if the request is served.
    pub message: Option<String>,
    /// Why it failed.
    pub verdict: Verdict,
    /// The sums.
    pub sums: Arithmetic,
    /// What is free, by part and reason.
    pub free: Vec<FreeRow>,
    /// Address and size of the largest free block in the lists that are searched.
    pub largest_hole: Option<(u64, u64)>,
    /// Fragmentation at that moment.
    pub fragmentation: FragmentationDocument,
    /// The smallest sets of live blocks whose freeing serves the request.
    pub blocking: BlockingDocument,
    /// The segments that something holds, most free bytes first.
    pub pins: Vec<PinDocument>,
    /// What would have helped, and what not.
    pub remedies: Vec<RemedyDocument>,
    /// The settings to paste, if any serve the request.
    pub cure: Option<String>,
    /// The moment with most free bytes outside the largest free block while a request found nothing.
    pub worst: Sample,
    /// Fragmentation over time, up to the request.
    pub timeline: Vec<Stretch>,
    /// What the usual advice gets wrong, and what cannot be known or was assumed.
    pub notes: Vec<String>,
}

/// All measures.
#[derive(Debug, Serialize)]
pub struct FragmentationDocument {
    /// Those in bytes.
    #[serde(flatten)]
    pub bytes: Fragmentation,
    /// `1 - largest_free / free`.
    pub external: f64,
    /// Reserved for each byte handed out.
    pub reserved_to_allocated: f64,
    /// Reserved for each byte handed out or waiting.
    pub reserved_to_active: f64,
    /// The share of the free bytes in blocks that are too small for the request.
    pub unusable_free_index: f64,
}

/// Two sets.
#[derive(Debug, Serialize)]
pub struct BlockingDocument {
    /// The one of least bytes.
    pub least_bytes: Option<SetDocument>,
    /// The one of fewest blocks.
    pub fewest_blocks: Option<SetDocument>,
}

/// A set of live blocks.
#[derive(Debug, Serialize)]
pub struct SetDocument {
    /// What was made small.
    pub objective: Objective,
    /// How freeing it serves the request.
    pub route: Route,
    /// Its bytes.
    pub bytes: u64,
    /// Whether no set is smaller.
    pub is_minimal: bool,
    /// No set is smaller than this, in bytes or blocks.
    pub at_least: u64,
    /// The blocks.
    pub blocks: Vec<BlockDocument>,
}

/// A live block.
#[derive(Clone, Debug, Serialize)]
pub struct BlockDocument {
    /// Its address.
    pub addr: u64,
    /// Its size.
    pub size: u64,
    /// What was asked for it.
    pub requested_bytes: u64,
    /// The stream's handle.
    pub stream: u64,
    /// The operation that made it; `null` if it was there before the first.
    pub made_by: Option<u64>,
    /// Operations since then.
    pub age: u64,
    /// Address and size of its segment.
    pub segment: (u64, u64),
    /// Where it was made, innermost first; the program's own lines before those of libraries.
    pub frames: Vec<String>,
}

/// A segment that something holds.
#[derive(Debug, Serialize)]
pub struct PinDocument {
    /// Its address.
    pub addr: u64,
    /// Its size: what comes back if its holders go.
    pub size: u64,
    /// Free bytes in it.
    pub free: u64,
    /// Bytes of its holders.
    pub held: u64,
    /// How many hold it.
    pub holders: u64,
    /// The largest of them.
    pub largest_holders: Vec<BlockDocument>,
}

/// What would have happened.
#[derive(Debug, Serialize)]
pub struct RemedyDocument {
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Whether the request is served.
    pub served: bool,
    /// Whether the whole program is; `null` where it was not replayed.
    pub completes: Option<bool>,
    /// The first operation that fails.
    pub fails_at: Option<u64>,
    /// Most bytes handed out.
    pub peak_allocated: Option<u64>,
    /// Most bytes reserved.
    pub peak_reserved: Option<u64>,
}

/// What a document says beside the explanation itself.
#[derive(Debug)]
pub struct ExplainHeading {
    /// The file as given.
    pub file: String,
    /// The device.
    pub device: u8,
    /// The release.
    pub torch: String,
    /// The settings as text.
    pub conf: String,
    /// The capacity, if there is one.
    pub capacity: Option<Bytes>,
    /// What cannot be known, or was assumed.
    pub notes: Vec<String>,
    /// Where the request was asked.
    pub frames: Vec<String>,
}

impl ExplainDocument {
    /// The document of one explanation. `frames` tells where an allocation was made.
    pub fn new(
        heading: ExplainHeading,
        explanation: &Explanation,
        scene: &Scene,
        frames: impl Fn(AllocId) -> Vec<String>,
    ) -> Self {
        let block = |id: &AllocId| explanation.held.get(id).map(|held| block(held, frames(*id)));
        let set = |set: &Option<BlockingSet>, objective| {
            set.as_ref().map(|set| SetDocument {
                objective,
                route: set.route,
                bytes: set.bytes.0,
                is_minimal: set.is_minimal,
                at_least: set.at_least,
                blocks: set.ids.iter().filter_map(block).collect(),
            })
        };
        let measures = explanation.fragmentation;
        let mut notes = explanation.notes.clone();
        notes.extend(heading.notes.into_iter().filter(|note| !explanation.notes.contains(note)));
        let hole = explanation.map.as_ref().and_then(|map| map.largest_hole);
        Self {
            file: heading.file,
            device: heading.device,
            torch: heading.torch,
            conf: heading.conf,
            capacity: heading.capacity.map(|capacity| capacity.0),
            op: explanation.op,
            origin: explanation.origin,
            requested_bytes: explanation.request.size.0,
            stream: explanation.request.stream.0,
            frames: heading.frames,
            message: explanation.message.clone(),
            verdict: explanation.verdict,
            sums: explanation.sums,
            free: explanation.map.as_ref().map(|map| map.rows.clone()).unwrap_or_default(),
            largest_hole: hole.map(|hole| (hole.start.0, hole.size.0)),
            fragmentation: FragmentationDocument {
                bytes: measures,
                external: measures.external(),
                reserved_to_allocated: measures.reserved_to_allocated(),
                reserved_to_active: measures.reserved_to_active(),
                unusable_free_index: explanation.unusable,
            },
            blocking: BlockingDocument {
                least_bytes: set(&explanation.blocking[0], Objective::Bytes),
                fewest_blocks: set(&explanation.blocking[1], Objective::Count),
            },
            pins: explanation
                .pins
                .iter()
                .map(|pin| PinDocument {
                    addr: pin.segment.start.0,
                    size: pin.segment.size.0,
                    free: pin.free.0,
                    held: pin.held.0,
                    holders: pin.holders.len() as u64,
                    largest_holders: pin.holders.iter().filter_map(block).collect(),
                })
                .collect(),
            cure: explanation.cure().and_then(cure_line),
            remedies: explanation.remedies.iter().map(remedy).collect(),
            worst: scene.series.worst(),
            timeline: scene.series.stretches().to_vec(),
            notes,
        }
    }
}

fn cure_line(remedy: &Remedy) -> Option<String> {
    match &remedy.change {
        Change::Conf(text) => Some(format!("PYTORCH_CUDA_ALLOC_CONF={text}")),
        _ => None,
    }
}

fn block(held: &Held, frames: Vec<String>) -> BlockDocument {
    BlockDocument {
        addr: held.span.start.0,
        size: held.span.size.0,
        requested_bytes: held.requested.0,
        stream: held.stream.0,
        made_by: held.made_by,
        age: held.age,
        segment: (held.segment.start.0, held.segment.size.0),
        frames,
    }
}

fn remedy(remedy: &Remedy) -> RemedyDocument {
    RemedyDocument {
        change: remedy.change.clone(),
        served: remedy.is_served,
        completes: remedy.completes,
        fails_at: remedy.fails_at,
        peak_allocated: remedy.peaks.map(|peaks| peaks[0].0),
        peak_reserved: remedy.peaks.map(|peaks| peaks[1].0),
    }
}
