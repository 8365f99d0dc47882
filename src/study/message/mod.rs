//! Why did it run out of memory? The answer from the figures of a message alone.
//!
//! ```text
//!  OomMessage ──► Account (what follows from the figures) ──► verdict ──► remedies
//! ```
//! Every figure is a range, as a message has two decimals. A verdict is certain if it holds whatever
//! the true figures are, likely if it holds for the printed ones or rests on what programs usually
//! do, and open if the message does not decide.

mod account;
mod remedy;
mod verdict;

pub use account::{Account, Contradiction};
pub use remedy::{Remedy, Step};

use crate::trace::OomMessage;

/// Why the request failed, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Enough bytes were free, but not in one piece where the request may go.
    Fragmentation,
    /// The bytes were not there.
    Full,
    /// Other processes hold the device.
    OtherProcesses,
    /// A limit on this process's share.
    FractionLimit,
    /// A limit of the platform or of a setting other than a share.
    OtherLimit,
    /// Private pools, as CUDA graphs have, keep free memory for themselves.
    PrivatePools,
    /// More is allocated than the device has: the driver lends memory of the host.
    HostSpill,
    /// The message does not decide.
    Open,
}

impl Cause {
    /// The stable name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fragmentation => "fragmentation",
            Self::Full => "truly full",
            Self::OtherProcesses => "other processes",
            Self::FractionLimit => "fraction limit",
            Self::OtherLimit => "other limit",
            Self::PrivatePools => "private pools",
            Self::HostSpill => "host spill-over",
            Self::Open => "not decidable",
        }
    }
}

/// What the verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// The cache had as many bytes as the segment that was asked for.
    CacheHadIt,
    /// The cache and the device together had them, with room to spare.
    TogetherHadIt,
    /// The request alone is larger than the device.
    LargerThanDevice,
    /// All free bytes together are fewer than the request.
    NotEnough,
    /// All free bytes together just reach the request: no allocator packs so tightly.
    BarelyEnough,
    /// What others hold would have served it.
    HeldByOthers,
    /// Reserved and request exceed the limit that the message names.
    LimitNamed,
    /// Reserved and request just exceed this share of the device, a round number, and the release
    /// does not print limits.
    LimitImplied(f64),
    /// The allocator refused before asking the device.
    Rejected,
    /// The request exceeds what the platform gives in one block, as the message says.
    BlockLimitNamed,
    /// The request exceeds 4 GiB, which Intel's drivers do not give in one block by default.
    BlockLimitUsual,
    /// The request exceeds the expandable reserve.
    Reserve,
    /// A custom allocator returned nothing.
    CustomAllocator,
    /// Free blocks of private pools would have served it.
    HeldByPools,
    /// More is allocated or reserved than the device has.
    BeyondDevice,
    /// Reserved and free together are more than the device has.
    BeyondDeviceWithFree,
    /// The device had it, and was refused all the same.
    DeviceHadIt,
    /// The memory between allocated and the capacity belongs to cudaMallocAsync's pool or to others.
    PoolUnseen,
    /// The figures contradict each other.
    Contradicts,
    /// The message lacks the figures that decide.
    Incomplete,
    /// The message has no figures.
    NoFigures,
    /// Another framework, whose message tells the request only.
    Foreign,
}

impl Reason {
    /// The stable name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::CacheHadIt => "cache had it",
            Self::TogetherHadIt => "cache and device had it together",
            Self::LargerThanDevice => "larger than the device",
            Self::NotEnough => "not enough",
            Self::BarelyEnough => "barely enough",
            Self::HeldByOthers => "held by others",
            Self::LimitNamed => "limit named",
            Self::LimitImplied(_) => "limit implied",
            Self::Rejected => "rejected",
            Self::BlockLimitNamed => "block limit named",
            Self::BlockLimitUsual => "block limit usual",
            Self::Reserve => "expandable reserve",
            Self::CustomAllocator => "custom allocator",
            Self::HeldByPools => "held by private pools",
            Self::BeyondDevice => "beyond the device",
            Self::BeyondDeviceWithFree => "beyond the device with free",
            Self::DeviceHadIt => "device had it",
            Self::PoolUnseen => "pool unseen",
            Self::Contradicts => "contradiction",
            Self::Incomplete => "incomplete",
            Self::NoFigures => "no figures",
            Self::Foreign => "another framework",
        }
    }
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// Whatever the true figures are within what was printed.
    Certain,
    /// By the printed figures, or by what is usual.
    Likely,
    /// The message does not decide.
    Open,
}

impl Certainty {
    /// The stable name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Open => "open",
        }
    }
}

/// The answer for one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// Why, in one word.
    pub cause: Cause,
    /// What that rests on.
    pub reason: Reason,
    /// How sure it is.
    pub certainty: Certainty,
    /// What follows from the figures.
    pub account: Account,
    /// What else was in the way, most first.
    pub contributing: Vec<Cause>,
    /// What the figures rule out.
    pub ruled_out: Vec<Cause>,
    /// For an open verdict, what it can have been.
    pub candidates: Vec<Cause>,
    /// What to do, and what not.
    pub remedies: Vec<Remedy>,
    /// What to record, so that the next failure is decided.
    pub record: Vec<Step>,
}

/// Finds why the request of `message` failed.
///
/// # Complexity
/// Constant, but for the listed processes.
pub fn diagnose(message: &OomMessage) -> Diagnosis {
    let account = Account::new(message);
    let mut diagnosis = verdict::verdict(message, account);
    diagnosis.remedies = remedy::remedies(message, &diagnosis);
    diagnosis.record = remedy::record(message, &diagnosis);
    diagnosis
}

#[cfg(test)]
mod tests;
