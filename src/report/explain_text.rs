//! Why a request failed, for people: the verdict first, then what shows it.

use std::fmt::Write;

use super::explain::{BlockDocument, ExplainDocument, RemedyDocument, SetDocument};
use crate::{
    base::{Addr, Bytes},
    study::explain::{Arithmetic, Change, FreeRow, Objective, Origin, Route, Verdict, WhyNot},
};

/// Places in the program whose blocks of a set are listed.
const LISTED: usize = 6;
/// Capacities from here on stand for none.
const NO_DEVICE: Bytes = Bytes(1 << 44);

/// The lines that a person reads.
pub fn text(document: &ExplainDocument) -> String {
    let mut text = String::new();
    let out = &mut text;
    let capacity = match (document.capacity, document.sums.capacity) {
        (Some(capacity), _) => format!("capacity {}", Bytes(capacity)),
        // The trace sets it itself.
        (None, set) if Bytes::ZERO < set && set < NO_DEVICE => format!("capacity {set}"),
        _ => "no capacity limit".to_owned(),
    };
    let conf = if document.conf.is_empty() { "default settings" } else { &document.conf };
    let _ = writeln!(
        out,
        "{} on cuda:{}, PyTorch {}, {capacity}, {conf}\n",
        document.file, document.device, document.torch
    );
    headline(document, out);
    if document.verdict != Verdict::Served && document.verdict != Verdict::Error {
        sums(document, out);
    }
    free(document, out);
    blocking(document, out);
    pins(document, out);
    remedies(document, out);
    if !document.notes.is_empty() {
        let _ = writeln!(out);
    }
    for note in &document.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    text
}

fn headline(document: &ExplainDocument, out: &mut String) {
    let (op, size) = (document.op, Bytes(document.requested_bytes));
    let what = match document.origin {
        Origin::Recorded => format!("before operation {op}, as in the recording: {size} asked"),
        Origin::Program => format!("at operation {op}: {size} asked"),
        Origin::Asked => format!("if {size} were asked before operation {op}"),
    };
    let on = match document.stream {
        0 => String::new(),
        stream => format!(" on stream {stream}"),
    };
    let outcome = match document.verdict {
        Verdict::Served => "SERVED",
        Verdict::Error => "ERROR",
        _ => "OUT OF MEMORY",
    };
    let _ = writeln!(out, "{outcome} {what}{on}");
    for frame in document.frames.iter().take(3) {
        let _ = writeln!(out, "                {frame}");
    }
    if let Some(message) = document.message.as_ref().filter(|_| document.verdict == Verdict::Error)
    {
        let _ = writeln!(out, "  {message}");
    }
    if let Some(line) = verdict(document) {
        let _ = writeln!(out, "{line}");
    }
    if document.verdict == Verdict::Served || document.verdict == Verdict::Error {
        return;
    }
    let served = document.remedies.iter().filter(|remedy| remedy.served);
    let of_cure = served.clone().find(|remedy| match (&remedy.change, &document.cure) {
        (Change::Conf(text), Some(cure)) => cure.ends_with(&format!("={text}")),
        _ => false,
    });
    let card = served.clone().find(|remedy| matches!(remedy.change, Change::Capacity(_)));
    match (&document.cure, of_cure, card) {
        (Some(cure), Some(remedy), _) => {
            let _ = writeln!(out, "What helps: {cure}\n            ({})", outcome_of(remedy));
        }
        (_, _, Some(remedy)) => {
            if let Change::Capacity(capacity) = remedy.change {
                let _ = writeln!(
                    out,
                    "What helps: less memory, or a device of {capacity} ({}); no setting does",
                    outcome_of(remedy)
                );
            }
        }
        _ if document.remedies.is_empty() => {}
        _ => {
            let _ = writeln!(out, "What helps: less memory, or a larger device; no setting does");
        }
    }
}

fn verdict(document: &ExplainDocument) -> Option<String> {
    if document.verdict == Verdict::Served {
        let hole = document.free.iter().any(|row| row.why.is_none());
        let from = if hole { "from a cached block" } else { "with new memory from the device" };
        return Some(format!("It is served {from}."));
    }
    sentence(document.verdict, &document.sums)
}

/// A verdict and what shows it, in a sentence; `None` for what is no lack of memory.
pub(super) fn sentence(verdict: Verdict, sums: &Arithmetic) -> Option<String> {
    let free = sums.room + sums.reserved.saturating_sub(sums.allocated);
    let (asked, needed) = (sums.rounded, sums.needed());
    let over = needed.saturating_sub(sums.available);
    Some(match verdict {
        Verdict::Served | Verdict::Error => return None,
        Verdict::Fragmentation => {
            format!("FRAGMENTATION: {free} are free, in pieces that do not serve {asked}.")
        }
        Verdict::Full if asked > sums.available => {
            format!("TRULY FULL: {asked} asked are more than all the {} there are.", sums.available)
        }
        Verdict::Full => format!(
            "TRULY FULL: {} handed out and {asked} asked are {over} more than the {} there are.",
            sums.allocated, sums.available
        ),
        Verdict::OtherProcesses => {
            format!("OTHER PROCESSES: it would fit, but they hold {}.", sums.external)
        }
        Verdict::Limit => {
            format!("MEMORY LIMIT: this process may have {} of {}.", sums.available, sums.capacity)
        }
        Verdict::PendingFrees => format!(
            "PENDING FREES: {} were freed, but other streams may still use them.",
            sums.pending
        ),
        Verdict::PrivatePools => {
            format!("PRIVATE POOLS: {free} are free, most of it in pools that serve nothing else.")
        }
        Verdict::OtherStreams => {
            format!("OTHER STREAMS: {free} are free, most of it in segments of other streams.")
        }
        Verdict::Capture => format!(
            "CAPTURE: {free} are free, but while a stream is captured nothing is given back."
        ),
        Verdict::Reserve => {
            format!("ADDRESS SPACE: {asked} are more than an expandable segment reserves.")
        }
    })
}

fn sums(document: &ExplainDocument, out: &mut String) {
    let sums = &document.sums;
    let needed = sums.needed();
    let balance = if needed <= sums.available {
        format!("{} to spare, were it all in one piece", sums.available - needed)
    } else {
        format!("{} too much, however it lies", needed - sums.available)
    };
    let unallocated = sums.reserved.saturating_sub(sums.allocated);
    let hole = document.largest_hole.map_or_else(
        || "none of it where this request is looked for".to_owned(),
        |(addr, size)| format!("the largest piece for it {} at {}", Bytes(size), Addr(addr)),
    );
    let _ = writeln!(out);
    let mut row = |name: &str, size: Bytes, rest: &str| {
        let line = format!("  {name:<22}{:>11}  {rest}", size.to_string());
        let _ = writeln!(out, "{}", line.trim_end());
    };
    row("there are", sums.available, &available(document));
    row("handed out", sums.allocated, "");
    row("asked", sums.rounded, &format!("together {needed}: {balance}"));
    row("free in segments", unallocated, &hole);
    let short = match sums.missing {
        Bytes(0) => format!("enough for a segment of {}", sums.segment),
        missing => format!("a segment of {} needs {missing} more", sums.segment),
    };
    row("free on the device", sums.room, &short);
}

fn available(document: &ExplainDocument) -> String {
    let sums = &document.sums;
    let mut parts = Vec::new();
    if sums.context > Bytes::ZERO {
        parts.push(format!("less {} of the context", sums.context));
    }
    if sums.external > Bytes::ZERO {
        parts.push(format!("less {} of other processes", sums.external));
    }
    if let Some(limit) = sums.limit {
        parts.push(format!("of which this process may have {limit}"));
    }
    if parts.is_empty() {
        return String::new();
    }
    format!("{} {}", sums.capacity, parts.join(", "))
}

fn why(row: &FreeRow) -> &'static str {
    match row.why {
        None => "fits, but came free only after it was looked for",
        Some(WhyNot::PrivatePool) => "a private pool's: serves nothing else",
        Some(WhyNot::OtherPool) => "not of the private pool that is asked",
        Some(WhyNot::OtherHalf) if row.is_small => "for requests of at most 1 MiB only",
        Some(WhyNot::OtherHalf) => "for requests above 1 MiB only",
        Some(WhyNot::OtherStream) => "another stream's",
        Some(WhyNot::Pending) => "freed, but another stream may still use it",
        Some(WhyNot::Expandable) => "expandable memory, which is off for this request",
        Some(WhyNot::TooSmall) => "too small",
        Some(WhyNot::Oversize) => "not below max_split_size: not split for it",
        Some(WhyNot::TooMuchLeft) => "would leave more than max_non_split_rounding over",
    }
}

fn free(document: &ExplainDocument, out: &mut String) {
    if document.free.is_empty() || document.verdict == Verdict::Served {
        return;
    }
    let _ = writeln!(out, "\nFree in segments, and why it does not serve");
    for row in &document.free {
        let half = if row.is_small { "small" } else { "large" };
        let mut place = half.to_owned();
        if row.pool.is_private() {
            let _ = write!(place, ", pool {}", row.pool);
        }
        if row.stream.0 != 0 {
            let _ = write!(place, ", stream {}", row.stream);
        }
        let blocks = count(row.blocks, "block");
        let _ = writeln!(
            out,
            "  {:>11}  {place}: {} ({blocks}, the largest {})",
            row.bytes.to_string(),
            why(row),
            row.largest
        );
    }
    let measures = &document.fragmentation;
    let _ = writeln!(
        out,
        "  external fragmentation {:.2}, too small for this request {:.2}; rounding {}, unsplit {}",
        measures.external,
        measures.unusable_free_index,
        measures.bytes.rounding,
        measures.bytes.slack
    );
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn blocking(document: &ExplainDocument, out: &mut String) {
    if document.verdict == Verdict::Served || document.verdict == Verdict::Error {
        return;
    }
    let (least, fewest) = (&document.blocking.least_bytes, &document.blocking.fewest_blocks);
    let is_same = |a: &SetDocument, b: &SetDocument| {
        a.blocks.iter().map(|block| block.addr).eq(b.blocks.iter().map(|block| block.addr))
    };
    match (least, fewest) {
        (None, None) => {
            let _ = writeln!(out, "\nNo live blocks were found whose freeing would serve it");
        }
        (Some(least), Some(fewest)) if is_same(least, fewest) => set(least, "in its way", out),
        _ => {
            if let Some(least) = least {
                set(least, "in its way, in the fewest bytes", out);
            }
            if let Some(fewest) = fewest {
                set(fewest, "in its way, in the fewest blocks", out);
            }
        }
    }
}

fn set(set: &SetDocument, title: &str, out: &mut String) {
    let how = match set.route {
        Route::Hole => "freed, they and their free neighbours are one piece that is large enough",
        Route::Release => "freed, memory goes back to the device, which has enough then",
    };
    let bound = match (set.is_minimal, set.objective) {
        (true, _) => "no smaller set does".to_owned(),
        (false, Objective::Bytes) => {
            format!("no set below {} does; a smaller one may exist", Bytes(set.at_least))
        }
        (false, Objective::Count) => {
            format!("no set below {} does; a smaller one may exist", count(set.at_least, "block"))
        }
    };
    let blocks = count(set.blocks.len() as u64, "block");
    let _ = writeln!(out, "\n{blocks} of {} {title}", Bytes(set.bytes));
    let _ = writeln!(out, "  ({how}; replayed: served; {bound})");
    let mut places: Vec<Vec<&BlockDocument>> = Vec::new();
    for block in &set.blocks {
        let is_here = |place: &&mut Vec<&BlockDocument>| {
            !block.frames.is_empty() && place.iter().all(|other| other.frames == block.frames)
        };
        match places.iter_mut().find(is_here) {
            Some(place) => place.push(block),
            None => places.push(vec![block]),
        }
    }
    let bytes = |place: &[&BlockDocument]| place.iter().map(|block| block.size).sum::<u64>();
    places.sort_by_key(|place| std::cmp::Reverse(bytes(place)));
    for place in places.iter().take(LISTED) {
        match place.as_slice() {
            [block] => {
                let segment = Bytes(block.segment.1);
                let _ = writeln!(out, "  {}, in a segment of {segment}", described(block));
            }
            several => {
                let ages = several.iter().map(|block| block.age);
                let (young, old) = (ages.clone().min(), ages.max());
                let _ = writeln!(
                    out,
                    "  {:>11} in {} from one place, {} to {} operations old",
                    Bytes(bytes(several)).to_string(),
                    count(several.len() as u64, "block"),
                    young.unwrap_or_default(),
                    old.unwrap_or_default()
                );
            }
        }
        if let Some(block) = place.first() {
            frames(block, out);
        }
    }
    if places.len() > LISTED {
        let rest: usize = places[LISTED..].iter().map(Vec::len).sum();
        let rest = count(rest as u64, "block");
        let _ = writeln!(out, "  … and {rest} more: --format json has them");
    }
}

fn described(block: &BlockDocument) -> String {
    let made = block.made_by.map_or_else(
        || "from before the history".to_owned(),
        |op| format!("from operation {op}, {} old", count(block.age, "operation")),
    );
    let stream =
        if block.stream == 0 { String::new() } else { format!(", stream {:#x}", block.stream) };
    format!("{:>11} {made}{stream}", Bytes(block.requested_bytes).to_string())
}

/// The first lines of the program itself; the document has all.
fn frames(block: &BlockDocument, out: &mut String) {
    for frame in block.frames.iter().take(3) {
        let _ = writeln!(out, "                {frame}");
    }
}

fn pins(document: &ExplainDocument, out: &mut String) {
    if document.pins.is_empty() || document.verdict == Verdict::Served {
        return;
    }
    let _ = writeln!(out, "\nWho pins the most free memory");
    for pin in &document.pins {
        let holders = count(pin.holders, "block");
        let _ = writeln!(
            out,
            "  {:>11} free in a segment of {}, held by {holders} of {}",
            Bytes(pin.free).to_string(),
            Bytes(pin.size),
            Bytes(pin.held)
        );
        if let Some(block) = pin.largest_holders.first() {
            let which = if pin.holders > 1 { "the largest: " } else { "" };
            let _ = writeln!(out, "              {which}{}", described(block).trim_start());
            if let Some(frame) = block.frames.first() {
                let _ = writeln!(out, "                {frame}");
            }
        }
    }
}

fn outcome_of(remedy: &RemedyDocument) -> String {
    let mut words = String::from(match (remedy.served, remedy.completes) {
        (true, Some(true)) => "served, and the whole program completes",
        (true, _) => "served",
        (false, _) => "not served",
    });
    match (remedy.fails_at, remedy.completes) {
        (Some(op), _) if remedy.served => {
            let _ = write!(words, ", but operation {op} fails");
        }
        (None, Some(false)) if remedy.served => words.push_str(", but a later operation fails"),
        (Some(op), _) => {
            let _ = write!(words, ": operation {op} fails");
        }
        _ => {}
    }
    if let Some(reserved) = remedy.peak_reserved {
        let _ = write!(words, "; peak reserved {}", Bytes(reserved));
    }
    words
}

fn remedies(document: &ExplainDocument, out: &mut String) {
    if document.remedies.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nWhat would have happened, replayed");
    let (served, others): (Vec<_>, Vec<_>) =
        document.remedies.iter().partition(|remedy| remedy.served);
    for remedy in served.into_iter().chain(others) {
        let name = match &remedy.change {
            Change::EmptyCache => "empty_cache() just before".to_owned(),
            Change::Conf(text) if text.is_empty() => "default settings".to_owned(),
            Change::Conf(text) => text.clone(),
            Change::Capacity(capacity) => format!("a device of {capacity}"),
            Change::FreedBefore(n) => {
                format!("{} in its way freed before", count(*n as u64, "block"))
            }
            Change::OwnPool(n) => {
                format!("{} in a pool apart (MemPool)", count(*n as u64, "block"))
            }
            Change::OwnPoolOfPlaces(n) => format!("all {n} of their places in a pool"),
        };
        let mark = if remedy.served { "yes" } else { "no" };
        let _ = writeln!(out, "  {mark:<4}{name:<36}  {}", outcome_of(remedy));
    }
}
