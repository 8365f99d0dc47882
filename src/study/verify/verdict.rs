//! [`Verdict`]: the certificate of one recording.

use crate::{
    base::{Addr, Release},
    trace::{Action, Event},
};

/// How many of the recorded decisions of a kind the model made alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Alike.
    pub equal: u64,
    /// Recorded.
    pub total: u64,
}

/// How the final layouts compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LayoutVerdict {
    /// Every segment and block alike.
    Identical,
    /// Something is not alike.
    Differs,
    /// Not compared, because a difference came before.
    #[default]
    NotReached,
}

/// The first thing that is not alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where: the operation, the entry of the history, or the line of the file.
    pub place: String,
    /// What was asked there.
    pub asked: String,
    /// What the recording says.
    pub recorded: String,
    /// What the model says.
    pub modelled: String,
    /// The state around it: some lines.
    pub around: String,
    /// What may be behind it.
    pub likely: String,
}

/// The certificate of one recording.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The release whose rules were applied.
    pub release: Release,
    /// Operations compared.
    pub ops: u64,
    /// Addresses handed out.
    pub addresses: Tally,
    /// `segment_alloc`.
    pub segment_allocs: Tally,
    /// `segment_free`.
    pub segment_frees: Tally,
    /// `segment_map`.
    pub segment_maps: Tally,
    /// `segment_unmap`.
    pub segment_unmaps: Tally,
    /// Frees that completed later than they were requested.
    pub pending_frees: Tally,
    /// Out-of-memory errors.
    pub ooms: Tally,
    /// The final layout.
    pub layout: LayoutVerdict,
    /// Facts that the recording does not hold and that were inferred, in words.
    pub inferred: Vec<String>,
    /// What cannot be known from this recording, and what is odd about it.
    pub notes: Vec<String>,
    /// The first difference; none if all is exact.
    pub difference: Option<Difference>,
}

impl Verdict {
    /// Whether everything is alike.
    pub fn is_exact(&self) -> bool {
        self.difference.is_none() && self.layout == LayoutVerdict::Identical
    }

    pub(super) fn tally(&mut self, action: Action) -> Option<&mut Tally> {
        match action {
            Action::Alloc => Some(&mut self.addresses),
            Action::SegmentAlloc => Some(&mut self.segment_allocs),
            Action::SegmentFree => Some(&mut self.segment_frees),
            Action::SegmentMap => Some(&mut self.segment_maps),
            Action::SegmentUnmap => Some(&mut self.segment_unmaps),
            Action::Oom => Some(&mut self.ooms),
            _ => None,
        }
    }

    /// Counts what was recorded.
    pub(super) fn expect(&mut self, events: impl IntoIterator<Item = Event>) {
        let mut last_requested: Option<Addr> = None;
        for event in events {
            if let Some(tally) = self.tally(event.action) {
                tally.total += 1;
            }
            if event.action == Action::FreeCompleted && last_requested != Some(event.addr) {
                self.pending_frees.total += 1;
            }
            last_requested = (event.action == Action::FreeRequested).then_some(event.addr);
        }
    }

    /// Counts what was made alike.
    pub(super) fn confirm<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        let mut last_requested: Option<Addr> = None;
        for event in events {
            if let Some(tally) = self.tally(event.action) {
                tally.equal += 1;
            }
            if event.action == Action::FreeCompleted && last_requested != Some(event.addr) {
                self.pending_frees.equal += 1;
            }
            last_requested = (event.action == Action::FreeRequested).then_some(event.addr);
        }
    }

    /// The certificate of a file with several devices: all must be exact.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        let add = |a: &mut Tally, b: Tally| {
            a.equal += b.equal;
            a.total += b.total;
        };
        self.ops += other.ops;
        add(&mut self.addresses, other.addresses);
        add(&mut self.segment_allocs, other.segment_allocs);
        add(&mut self.segment_frees, other.segment_frees);
        add(&mut self.segment_maps, other.segment_maps);
        add(&mut self.segment_unmaps, other.segment_unmaps);
        add(&mut self.pending_frees, other.pending_frees);
        add(&mut self.ooms, other.ooms);
        if other.layout != LayoutVerdict::Identical {
            self.layout = other.layout;
        }
        self.inferred.extend(other.inferred);
        self.notes.extend(other.notes);
        self.difference = self.difference.or(other.difference);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact() -> Verdict {
        Verdict { layout: LayoutVerdict::Identical, ..Verdict::default() }
    }

    #[test]
    fn what_was_not_compared_is_not_exact() {
        assert!(!Verdict::default().is_exact());
        assert!(exact().is_exact());
    }

    #[test]
    fn several_devices_are_exact_only_together() {
        assert!(exact().join(exact()).is_exact());
        assert!(!exact().join(Verdict::default()).is_exact());
        assert!(!Verdict::default().join(exact()).is_exact());
    }
}
