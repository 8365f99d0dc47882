//! What an allocator did in one operation, in sentences.

use crate::{
    base::{Bytes, Id, StreamHandle},
    lesson::{Fact, Played, Refusal, Step},
    sim::{AllocError, Allocated, FreeCompleted, Place, Segment},
    study::explain::WhyNot,
};

/// What happened, a sentence each; never empty.
pub fn sentences(step: &Step, played: &Played) -> Vec<String> {
    let mut told = Vec::new();
    let name = step.id.and_then(|id| played.names.get(id.index())).map_or("it", String::as_str);
    if step.asked.is_some() && step.facts.iter().any(asks_device) {
        told.push(nothing_serves(&step.refusals));
    }
    let mut facts = step.facts.iter().peekable();
    // Where a block is cut from, if that is new.
    let mut new: Option<New> = None;
    while let Some(fact) = facts.next() {
        match fact {
            Fact::Alloc(alloc) => told.push(handed_out(name, alloc, new)),
            Fact::FreeRequested(_) => {
                if !matches!(facts.peek(), Some(Fact::FreeCompleted(_))) {
                    told.push(format!("{name} is freed, but another stream may still use it: it waits, active and not allocated"));
                }
            }
            Fact::FreeCompleted(free) => told.push(went_back(step, name, free)),
            Fact::SegmentAlloc(segment) => {
                new = Some(New::Segment);
                told.push(format!(
                    "cudaMalloc gives a segment of {} to {}",
                    segment.span.size,
                    pool(&segment.place)
                ));
            }
            Fact::SegmentMap(segment) => {
                let mut size = segment.span.size;
                while let Some(Fact::SegmentMap(more)) = facts.peek() {
                    size += more.span.size;
                    facts.next();
                }
                new = Some(New::Range);
                told.push(format!("{size} of memory is mapped into the expandable segment of {}", pool(&segment.place)));
            }
            Fact::SegmentFree(segment) => told.push(given_back(segment, &mut facts)),
            Fact::SegmentUnmap(segment) => told.push(format!("{} is unmapped and goes back to the device", segment.span.size)),
            Fact::Retry => told.push(match facts.peek() {
                Some(Fact::SegmentFree(_) | Fact::SegmentUnmap(_)) => "the device has not enough: what is wholly free is given back, and it is asked again".into(),
                _ => "the device has not enough, and there is nothing wholly free to give back".into(),
            }),
            Fact::Wait => {
                if matches!(facts.peek(), Some(Fact::FreeCompleted(_))) {
                    told.push("it waits for the other streams".into());
                }
            }
            Fact::PoolCreated(pool) => told.push(format!("private pool {pool} is there from now on")),
            Fact::Oom(failed) => told.push(format!("OUT OF MEMORY: {} is asked, and the device has {} free", failed.size, failed.device_free)),
            Fact::Rejected => {}
        }
    }
    if let Some(AllocError::Refused(text) | AllocError::Failed(text)) = &step.error {
        told.push(format!("refused: {text}"));
    }
    if told.is_empty() {
        told.push(nothing_done(step));
    }
    // What matters first: the rest may not have room.
    if step.error.is_some() {
        told.rotate_right(1);
    }
    told
}

fn asks_device(fact: &Fact) -> bool {
    matches!(fact, Fact::SegmentAlloc(_) | Fact::SegmentMap(_) | Fact::Oom(_) | Fact::Retry)
}

fn nothing_done(step: &Step) -> String {
    match step.text.split_whitespace().next() {
        Some("empty_cache") => "there is no segment that is wholly free: nothing goes back".into(),
        Some("record_stream") => "noted: nothing moves before it is freed".into(),
        Some("free") => "its request had failed: there is nothing to free".into(),
        Some("complete") => "noted by the next request".into(),
        _ => "no memory moves".into(),
    }
}

/// Why the request goes to the device.
fn nothing_serves(refusals: &[Refusal]) -> String {
    if refusals.is_empty() {
        return "nothing is free".into();
    }
    let all: Bytes = refusals.iter().map(|refusal| refusal.bytes).sum();
    let each: Vec<String> = refusals
        .iter()
        .map(|refusal| {
            let (size, largest) = (refusal.bytes, refusal.largest);
            let what = match (refusal.blocks, refusals.len()) {
                (1, 1) => "in one block".to_owned(),
                (1, _) => format!("{size} in one block"),
                (n, 1) => format!("in {n} blocks of at most {largest}"),
                (n, _) => format!("{size} in {n} blocks of at most {largest}"),
            };
            let too_small_one = refusal.why == WhyNot::TooSmall && refusal.blocks > 1;
            let why = if too_small_one { "each too small" } else { reason(refusal.why) };
            format!("{what}, {why}")
        })
        .collect();
    format!("{all} is free, but {}", each.join("; "))
}

const fn reason(why: WhyNot) -> &'static str {
    match why {
        WhyNot::PrivatePool => "in a private pool",
        WhyNot::OtherPool => "in another pool",
        WhyNot::OtherHalf => "in the other half (small or large)",
        WhyNot::OtherStream => "of another stream",
        WhyNot::Pending => "waiting for another stream",
        WhyNot::Expandable => "in an expandable segment",
        WhyNot::TooSmall => "too small",
        WhyNot::Oversize => "too large to be split (max_split_size_mb)",
        WhyNot::TooMuchLeft => "too large for it (max_split_size_mb)",
    }
}

fn pool(place: &Place) -> String {
    let half = if place.is_small { "small" } else { "large" };
    let mut text = format!("the {half} pool");
    if place.pool.is_private() {
        text = format!("the {half} half of private pool {}", place.pool);
    }
    if place.stream != StreamHandle(0) {
        text.push_str(" of the side stream");
    }
    text
}

/// What is new where a block lies.
#[derive(Clone, Copy)]
enum New {
    /// A segment of its own or to be shared.
    Segment,
    /// A range of an expandable segment; what was free before it may be a part of the block.
    Range,
}

fn handed_out(name: &str, alloc: &Allocated, new: Option<New>) -> String {
    let size = alloc.span.size;
    let rounded = if size.0 - alloc.requested.0 >= 512 {
        format!(" (for {} asked)", alloc.requested)
    } else {
        String::new()
    };
    match (new, alloc.remainder) {
        (Some(New::Segment), Some(rest)) => {
            format!("{name} takes {size}{rounded} of it, {rest} stays free")
        }
        (Some(New::Segment), None) => format!("{name} takes it whole{rounded}"),
        (Some(New::Range), Some(rest)) => {
            format!("{name} takes {size}{rounded} there, {rest} stays free")
        }
        (Some(New::Range), None) => format!("{name} takes {size}{rounded} there"),
        (None, Some(rest)) => format!(
            "{name} is cut from a free block of {}: {size}{rounded}, {rest} stays free",
            size + rest
        ),
        (None, None) => format!("{name} takes a free block of {size} whole{rounded}"),
    }
}

fn went_back(step: &Step, name: &str, free: &FreeCompleted) -> String {
    // A free that waited ends while the allocator does something else.
    let who = if step.text.starts_with("free ") { name } else { "a block that waited" };
    let [before, after] = free.merged;
    match (before > Bytes::ZERO, after > Bytes::ZERO) {
        (false, false) => format!("{who} goes back to its pool: {} free", free.free.size),
        (true, true) => format!(
            "{who} joins the free blocks on both sides: {} free in one piece",
            free.free.size
        ),
        (true, false) => {
            format!("{who} joins the free block before it: {} free in one piece", free.free.size)
        }
        (false, true) => {
            format!("{who} joins the free block behind it: {} free in one piece", free.free.size)
        }
    }
}

fn given_back<'a>(
    first: &Segment,
    facts: &mut std::iter::Peekable<impl Iterator<Item = &'a Fact>>,
) -> String {
    let (mut count, mut size) = (1, first.span.size);
    while let Some(Fact::SegmentFree(more)) = facts.peek() {
        count += 1;
        size += more.span.size;
        facts.next();
    }
    match count {
        1 => format!("cudaFree: a segment of {size} goes back to the device"),
        n => format!("cudaFree: {n} segments, {size} together, go back to the device"),
    }
}
