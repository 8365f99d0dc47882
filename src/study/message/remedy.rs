//! What to do about a verdict, what not to do, and what to record where it is open. Which, not in
//! which words: those are the report's.

use super::{Cause, Diagnosis, Reason};
use crate::{
    base::ByteRange,
    trace::{Backend, MessageLayout, OomMessage},
};

/// One piece of advice.
#[derive(Clone, Debug, PartialEq)]
pub enum Remedy {
    /// Turn expandable segments on.
    SetExpandable {
        /// The variable that the message's release reads.
        variable: String,
    },
    /// Expandable segments are on already: the usual advice is no cure.
    ExpandableIsOn,
    /// Not together with `max_split_size_mb`.
    NotBothSettings,
    /// Keep large blocks whole; the only setting of that release that touches holes.
    SetMaxSplit {
        /// The variable.
        variable: String,
        /// A first try, in MiB.
        mib: u64,
    },
    /// That release has no setting against holes.
    UpgradeForSettings,
    /// What curing the holes gives at most.
    GainAtMost(ByteRange),
    /// `empty_cache` does not help: what it can give back was given back.
    NotEmptyCache,
    /// No setting helps, only less memory or a larger device.
    LessMemory {
        /// How much less at least, where it is known.
        shortfall: Option<ByteRange>,
    },
    /// The request is this many times the whole device: a size went wrong.
    CheckSize {
        /// How many times.
        times: f64,
    },
    /// Find and stop the other processes.
    StopOthers {
        /// Those that the message lists.
        listed: Vec<u64>,
    },
    /// Raise the share of the device.
    RaiseFraction {
        /// The least that would have served this request.
        least: Option<f64>,
    },
    /// A memory fraction counts reserved memory, holes and all.
    LimitCountsReserved,
    /// The limit of MPS can be lifted, at a risk.
    LiftWatermark,
    /// Free graphs, or let them share a pool.
    ShareGraphPools,
    /// The driver lends memory of the host; that is slow and ends somewhere.
    LeaveHostMemory,
    /// Ask for smaller blocks.
    SmallerBlocks,
    /// Raise the expandable reserve.
    RaiseReserve,
    /// Look at the pool's custom allocator.
    AskCustomAllocator,
    /// Not memory was short: find what refused it.
    FindRefusal,
    /// It did not come from the allocator: look at the device.
    LookAtDevice,
}

/// What to record or note for next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The two lines that record a history and write it out at the failure.
    Snapshot,
    /// The whole message, as it was cut.
    WholeMessage,
    /// The limit and the free memory, asked beside the failing call.
    AskLimit,
    /// The reserved share of the device; for releases that do not tell the limit.
    AskShare,
    /// The pool of cudaMallocAsync and the free memory.
    AskPool,
    /// The list of processes on the device.
    ListProcesses,
    /// A release that can record.
    Upgrade,
}

pub(super) fn remedies(message: &OomMessage, diagnosis: &Diagnosis) -> Vec<Remedy> {
    let mut advice = Vec::new();
    let account = &diagnosis.account;
    match diagnosis.cause {
        Cause::Fragmentation => against_holes(message, diagnosis, &mut advice),
        Cause::Full => {
            if diagnosis.reason == Reason::LargerThanDevice {
                let times = account.requested.zip(account.total);
                let times = times.map_or(0.0, |(requested, total)| requested.ratio(total));
                if times >= 4.0 || message.layout == MessageLayout::Beyond {
                    advice.push(Remedy::CheckSize { times });
                    return advice;
                }
            }
            advice.push(Remedy::LessMemory { shortfall: lacking(diagnosis) });
        }
        Cause::OtherProcesses => advice.push(stop_others(message)),
        Cause::FractionLimit if message.layout == MessageLayout::Mps => {
            advice.extend([Remedy::LessMemory { shortfall: over(message) }, Remedy::LiftWatermark]);
        }
        Cause::FractionLimit => {
            let wants = account.reserved.zip(account.requested).zip(account.total);
            let least = wants.map(|((reserved, asked), total)| (reserved + asked).ratio(total));
            advice.push(Remedy::RaiseFraction { least });
            let has_holes = diagnosis.contributing.contains(&Cause::Fragmentation);
            if message.layout != MessageLayout::MallocAsync {
                advice.push(Remedy::LimitCountsReserved);
            }
            if has_holes {
                against_holes(message, diagnosis, &mut advice);
            }
        }
        Cause::PrivatePools => advice.push(Remedy::ShareGraphPools),
        Cause::HostSpill => {
            advice.extend([Remedy::LeaveHostMemory, Remedy::LessMemory { shortfall: None }]);
        }
        Cause::OtherLimit => advice.push(match diagnosis.reason {
            Reason::Reserve => Remedy::RaiseReserve,
            Reason::CustomAllocator => Remedy::AskCustomAllocator,
            _ => Remedy::SmallerBlocks,
        }),
        Cause::Open => match diagnosis.reason {
            Reason::DeviceHadIt => advice.push(Remedy::FindRefusal),
            Reason::NoFigures if message.layout == MessageLayout::DriverError => {
                advice.push(Remedy::LookAtDevice);
            }
            _ => {}
        },
    }
    let has_holes = advice.iter().any(|one| matches!(one, Remedy::GainAtMost(_)));
    let also = |cause| diagnosis.contributing.contains(&cause);
    if also(Cause::OtherProcesses) && diagnosis.cause != Cause::OtherProcesses {
        advice.push(stop_others(message));
    }
    if also(Cause::PrivatePools) {
        advice.push(Remedy::ShareGraphPools);
    }
    if also(Cause::Fragmentation) && !has_holes && diagnosis.cause != Cause::Open {
        against_holes(message, diagnosis, &mut advice);
    }
    let releases_first = matches!(
        message.layout,
        MessageLayout::Cached | MessageLayout::Reserved | MessageLayout::Capacity
    );
    if releases_first && account.unallocated.is_some() {
        advice.push(Remedy::NotEmptyCache);
    }
    advice
}

fn stop_others(message: &OomMessage) -> Remedy {
    let is_own_known = message.figures.this_process.is_some();
    let listed = message.figures.processes.iter().map(|(id, _)| *id);
    Remedy::StopOthers { listed: listed.filter(|_| is_own_known).collect() }
}

/// What the request lacks, if it surely lacks something.
fn lacking(diagnosis: &Diagnosis) -> Option<ByteRange> {
    let account = &diagnosis.account;
    if diagnosis.reason == Reason::LargerThanDevice {
        return account.requested.zip(account.total).map(|(requested, total)| requested - total);
    }
    account.shortfall.filter(|lacks| lacks.middle() > 0)
}

fn over(message: &OomMessage) -> Option<ByteRange> {
    let figures = &message.figures;
    let held = figures.allocated? + figures.other_allocations.unwrap_or(ByteRange::ZERO);
    Some(held + figures.requested? - figures.allowed?).filter(|over| over.middle() > 0)
}

/// The settings that touch holes, in the release that printed the message.
fn against_holes(message: &OomMessage, diagnosis: &Diagnosis, advice: &mut Vec<Remedy>) {
    let variable =
        |default: &str| message.hints.variable.clone().unwrap_or_else(|| default.to_owned());
    let default = match message.backend {
        Backend::Cuda => "PYTORCH_CUDA_ALLOC_CONF",
        Backend::Hip => "PYTORCH_HIP_ALLOC_CONF",
        Backend::Npu => "PYTORCH_NPU_ALLOC_CONF",
        _ => "",
    };
    let newest = message.torch.map(|[_, newest]| newest);
    if message.hints.is_expandable {
        advice.push(Remedy::ExpandableIsOn);
    } else if default.is_empty() {
        // XPU and others: their settings are not in the message.
    } else if newest.is_some_and(|newest| newest <= (1, 4)) {
        advice.push(Remedy::UpgradeForSettings);
    } else if newest.is_some_and(|newest| newest <= (2, 0)) || message.backend == Backend::Npu {
        if let Some(mib) = max_split(diagnosis) {
            advice.push(Remedy::SetMaxSplit { variable: variable(default), mib });
        }
        if message.backend != Backend::Npu {
            advice.push(Remedy::UpgradeForSettings);
        }
    } else {
        advice.push(Remedy::SetExpandable { variable: variable(default) });
        advice.push(Remedy::NotBothSettings);
    }
    if let Some(holes) = diagnosis.account.unallocated {
        advice.push(Remedy::GainAtMost(holes));
    }
}

/// A size above which blocks stay whole: the power of two at or below the request, not above 512.
/// The allocator takes none of 20 MiB or less.
fn max_split(diagnosis: &Diagnosis) -> Option<u64> {
    let mib = u64::try_from(diagnosis.account.requested?.middle() >> 20).ok()?;
    let power = 1_u64 << mib.checked_ilog2()?;
    (power >= 32).then_some(power.min(512))
}

pub(super) fn record(message: &OomMessage, diagnosis: &Diagnosis) -> Vec<Step> {
    let records = matches!(message.backend, Backend::Cuda | Backend::Hip);
    let is_old = message.torch.is_some_and(|[_, newest]| newest < (1, 13));
    let snapshot = if is_old { Step::Upgrade } else { Step::Snapshot };
    let mut steps = Vec::new();
    match (diagnosis.cause, diagnosis.reason) {
        (Cause::Open, Reason::Foreign) => steps.push(Step::ListProcesses),
        (Cause::Open, Reason::DeviceHadIt) => {
            let can_be_limit = diagnosis.candidates.contains(&Cause::FractionLimit);
            let tells_limit = message.torch.is_some_and(|[_, newest]| newest >= (2, 6));
            steps.extend(records.then_some(match (can_be_limit, tells_limit) {
                (true, true) => Step::AskLimit,
                (true, false) => Step::AskShare,
                (false, _) => snapshot,
            }));
            steps.push(Step::ListProcesses);
        }
        (Cause::Open, Reason::PoolUnseen) => steps.extend([Step::AskPool, Step::ListProcesses]),
        (Cause::Open, Reason::NoFigures) => {
            // What to do about an error of the driver begins with the list of processes.
            if message.layout != MessageLayout::DriverError {
                steps.push(Step::ListProcesses);
            }
            steps.extend(records.then_some(snapshot));
        }
        (Cause::Open, _) => {
            steps.push(Step::WholeMessage);
            steps.extend(records.then_some(snapshot));
        }
        (Cause::Fragmentation | Cause::PrivatePools, _) => {
            steps.extend(records.then_some(snapshot));
        }
        _ => {}
    }
    steps
}
