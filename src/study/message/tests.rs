//! The rules, one by one.

use super::*;
use crate::{
    base::{ByteRange, Bytes},
    trace::{Backend, MessageFigures, MessageHints, MessageLayout},
};

/// A message of 2.1 and later with these figures in MiB: asked, capacity, free, allocated, holes.
fn message([requested, total, free, allocated, holes]: [u64; 5]) -> OomMessage {
    let mib = |size| Some(ByteRange::exact(Bytes::mib(size)));
    OomMessage {
        backend: Backend::Cuda,
        layout: MessageLayout::Capacity,
        torch: Some([(2, 5), (2, 9)]),
        device: Some(0),
        figures: MessageFigures {
            requested: mib(requested),
            total: mib(total),
            free: mib(free),
            allocated: mib(allocated),
            unallocated: mib(holes),
            ..MessageFigures::default()
        },
        hints: MessageHints::default(),
        tensor: None,
    }
}

fn check(message: &OomMessage, cause: Cause, reason: Reason, certainty: Certainty) {
    let found = diagnose(message);
    assert_eq!((found.cause, found.reason, found.certainty), (cause, reason, certainty));
}

#[test]
fn holes_as_large_as_the_request_are_fragmentation() {
    let message = message([500, 16_000, 100, 14_500, 500]);
    check(&message, Cause::Fragmentation, Reason::CacheHadIt, Certainty::Certain);
}

#[test]
fn holes_that_are_needed_to_the_last_byte_are_not() {
    let message = message([500, 16_000, 100, 15_000, 401]);
    check(&message, Cause::Full, Reason::BarelyEnough, Certainty::Likely);
}

#[test]
fn fewer_free_bytes_than_the_request_are_no_question() {
    let message = message([500, 16_000, 100, 15_000, 399]);
    check(&message, Cause::Full, Reason::NotEnough, Certainty::Certain);
    assert!(diagnose(&message).ruled_out.contains(&Cause::Fragmentation));
}

/// A segment of 20 MiB may stand for 1 MiB, which a hole of 10 MiB might have held.
#[test]
fn a_segment_may_be_larger_than_what_was_needed() {
    let message = message([20, 16_000, 2, 15_500, 10]);
    check(&message, Cause::Full, Reason::NotEnough, Certainty::Likely);
    assert!(!diagnose(&message).ruled_out.contains(&Cause::Fragmentation));
}

#[test]
fn a_round_share_just_exceeded_is_a_hidden_limit() {
    let mut message = message([64, 80_000, 39_000, 39_900, 60]);
    message.torch = Some([(2, 1), (2, 1)]);
    let found = diagnose(&message);
    assert_eq!((found.cause, found.certainty), (Cause::FractionLimit, Certainty::Likely));
    // From 2.5 on a limit is printed.
    message.torch = Some([(2, 5), (2, 9)]);
    check(&message, Cause::Open, Reason::DeviceHadIt, Certainty::Open);
    assert!(diagnose(&message).ruled_out.contains(&Cause::FractionLimit));
}

/// Where the device had no room either, raising the limit would not have helped.
#[test]
fn a_limit_on_a_full_device_is_not_the_cause() {
    let mut message = message([500, 16_000, 100, 15_000, 10]);
    message.figures.allowed = Some(ByteRange::exact(Bytes::mib(15_200)));
    let found = diagnose(&message);
    assert_eq!(found.cause, Cause::Full);
    assert_eq!(found.contributing, [Cause::FractionLimit]);
}

/// In a container the own process has another number: it is the one that can hold what is reserved.
#[test]
fn a_listed_process_may_be_this_one() {
    let mut message = message([500, 16_000, 100, 9_000, 10]);
    let mib = |size| ByteRange::exact(Bytes::mib(size));
    message.figures.processes = vec![(7, mib(9_400)), (8, mib(6_400))];
    let found = diagnose(&message);
    assert_eq!(found.cause, Cause::OtherProcesses);
    assert_eq!(found.account.others, Some(mib(6_400)));
    assert_eq!(found.account.context, Some(mib(390)));
}

#[test]
fn expandable_segments_that_are_on_are_not_advised() {
    let mut message = message([500, 16_000, 100, 14_500, 500]);
    let advises = |message: &OomMessage| {
        let remedies = diagnose(message).remedies;
        remedies.iter().any(|one| matches!(one, Remedy::SetExpandable { .. }))
    };
    assert!(advises(&message));
    message.hints.is_expandable = true;
    assert!(!advises(&message));
    assert!(diagnose(&message).remedies.contains(&Remedy::ExpandableIsOn));
}

#[test]
fn figures_that_cannot_be_are_named() {
    let mut message = message([500, 16_000, 100, 9_000, 10]);
    message.figures.free = Some(ByteRange::exact(Bytes::mib(17_000)));
    check(&message, Cause::Open, Reason::Contradicts, Certainty::Open);
    assert_eq!(diagnose(&message).account.contradictions, [Contradiction::FreeBeyondTotal]);
}
