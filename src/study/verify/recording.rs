//! [`verify_trace`]: finds the terms under which a recording is exact, or says where it is not.

use super::{
    Verdict, assume, likely,
    lockstep::{self, Run, Terms},
    pools, start,
};
use crate::{
    base::{Bytes, OpIndex, RELEASES, Release},
    models::pytorch::conf::{AllocConf, ConfError},
    trace::{Action, Control, Event, Recorded, RecordedSettings, Trace},
};

/// What the user knows of a recording.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// The release that made it; otherwise those that can have written the file are tried.
    pub release: Option<Release>,
    /// `PYTORCH_CUDA_ALLOC_CONF`; otherwise what the recording reports.
    pub conf: Option<String>,
    /// Capacity of the device.
    pub capacity: Option<Bytes>,
}

/// The settings of a recording: its string, then the fields that say what is in force.
///
/// # Errors
/// When the release refuses the string.
pub fn recorded_conf(
    release: Release,
    settings: Option<&RecordedSettings>,
) -> Result<AllocConf, ConfError> {
    let Some(settings) = settings else { return Ok(AllocConf::new(release)) };
    let (mut conf, _) = AllocConf::from_string(release, &settings.conf)?;
    conf.max_split_size = settings.max_split_size.unwrap_or(Bytes::MAX);
    conf.garbage_collection_threshold = settings.garbage_collection_threshold;
    conf.expandable_segments = settings.expandable_segments;
    if let Some(divisions) = settings.roundup_power2_divisions {
        conf.roundup_power2_divisions = divisions;
    }
    Ok(conf)
}

/// Why a recording cannot be compared at all: its settings, or those given, are refused by every
/// release that can have made it. What the newest of them says.
pub fn refused_settings(trace: &Trace, options: &VerifyOptions) -> Option<(Release, ConfError)> {
    let recorded = trace.recorded()?;
    let mut refused = None;
    for release in releases_to_try(recorded, options) {
        match conf_for(release, recorded, options) {
            Ok(_) => return None,
            Err(error) => refused = refused.or(Some((release, error))),
        }
    }
    refused
}

fn conf_for(
    release: Release,
    recorded: &Recorded,
    options: &VerifyOptions,
) -> Result<AllocConf, ConfError> {
    match &options.conf {
        Some(text) => AllocConf::from_string(release, text).map(|(conf, _)| conf),
        None => recorded_conf(release, recorded.settings.as_ref()),
    }
}

fn releases_to_try(recorded: &Recorded, options: &VerifyOptions) -> Vec<Release> {
    match options.release {
        Some(release) => vec![release],
        None => candidates(recorded.releases),
    }
}

/// Runs a recording through the model in lock-step. Without a release given, every behaviour that
/// the file's format allows is tried, the newest first. A recording whose settings no release takes
/// is not compared and not exact: see [`refused_settings`].
///
/// # Complexity
/// A few steps an operation for each release, capacity and pool that has to be tried; most
/// recordings need one of each.
pub fn verify_trace(trace: &Trace, options: &VerifyOptions) -> Verdict {
    find_terms(trace, options).map(|found| found.run.verdict).unwrap_or_default()
}

/// A recording with what was inferred about it put in: pools of segments that vanished, and when
/// those pools were let go. And what was inferred, in words.
///
/// # Complexity
/// As [`verify_trace`].
pub fn resolved(trace: Trace, options: &VerifyOptions) -> (Trace, Vec<String>) {
    let needs = trace.recorded().is_some_and(|recorded| {
        !recorded.vanished.is_empty()
            || !recorded.maybe_empty.is_empty()
            || !recorded.completions.is_empty()
    });
    let Some(found) = needs.then(|| find_terms(&trace, options)).flatten() else {
        return (trace, Vec::new());
    };
    let mut resolved = found.trace.unwrap_or(trace);
    // From the last on, so that the indices before stay what they are.
    let facts = found.facts.into_iter().map(|(op, fact)| (op, Some(fact)));
    let gone = found.run.not_asked.into_iter().map(|op| (op, None));
    let mut changes: Vec<(OpIndex, Option<Control>)> = facts.chain(gone).collect();
    changes.sort_by_key(|(op, _)| std::cmp::Reverse(*op));
    for (op, change) in changes {
        match change {
            Some(fact) => resolved.insert_control(op, fact),
            None => resolved.remove_op(op),
        }
    }
    (resolved, found.run.verdict.inferred)
}

/// The terms that explain most of a recording.
struct Found {
    terms: Terms,
    run: Run,
    /// The recording with what was inferred of it, if anything was.
    trace: Option<Trace>,
    /// Calls that the history does not record.
    facts: Vec<(OpIndex, Control)>,
}

fn find_terms(trace: &Trace, options: &VerifyOptions) -> Option<Found> {
    let recorded = trace.recorded()?;
    let candidates = releases_to_try(recorded, options);
    let mut best = best_of(trace, recorded, options, &candidates)?;
    best.run.verdict.notes.extend(recorded.notes.iter().cloned());
    if let Some(difference) = &mut best.run.verdict.difference
        && difference.likely.is_empty()
    {
        let exact_on = options.release.and_then(|_| another_release(trace, recorded, options));
        difference.likely = likely::cause(trace, recorded, &best.terms, exact_on);
    }
    Some(best)
}

/// A release that explains everything at the first try, where the user named one that does not.
fn another_release(trace: &Trace, recorded: &Recorded, options: &VerifyOptions) -> Option<Release> {
    let all = candidates((Release::OLDEST, Release::NEWEST));
    all.into_iter().filter(|release| options.release != Some(*release)).find(|release| {
        let conf = recorded_conf(*release, recorded.settings.as_ref());
        conf.is_ok_and(|conf| {
            let terms =
                Terms { release: *release, conf, capacity: options.capacity, empties: Vec::new() };
            lockstep::run(trace, recorded, &terms, &[]).verdict.is_exact()
        })
    })
}

fn best_of(
    trace: &Trace,
    recorded: &Recorded,
    options: &VerifyOptions,
    candidates: &[Release],
) -> Option<Found> {
    let mut best: Option<Found> = None;
    for &release in candidates {
        let Ok(conf) = conf_for(release, recorded, options) else { continue };
        let terms = Terms { release, conf, capacity: options.capacity, empties: Vec::new() };
        let rounded = start::rounded(trace, recorded, &terms.conf, release);
        let trace = rounded.as_ref().unwrap_or(trace);
        let mut found = with_pools(trace, recorded, with_capacity(trace, recorded, terms));
        found.trace = found.trace.or_else(|| rounded.clone());
        let found = with_assumptions(trace, recorded, found);
        let is_exact = found.run.verdict.is_exact();
        let is_better = |best: &Found| found.run.equal_events > best.run.equal_events;
        if is_exact || best.as_ref().is_none_or(is_better) {
            best = Some(found);
        }
        if is_exact {
            break;
        }
    }
    best
}

/// Where pools are unknown and that shows, they are inferred.
fn with_pools(trace: &Trace, recorded: &Recorded, (terms, run): (Terms, Run)) -> Found {
    let plain = |terms, run| Found { terms, run, trace: None, facts: Vec::new() };
    if run.verdict.is_exact() || recorded.vanished.is_empty() {
        return plain(terms, run);
    }
    let first = lockstep::run(trace, recorded, &terms, &[]);
    match pools::resolve(trace, recorded, &terms, first) {
        Some(mut found) if found.run.equal_events >= run.equal_events => {
            found.run.verdict.inferred.push(format!(
                "the private pool of {} segments that were gone when the snapshot was taken",
                found.moved
            ));
            Found { terms, run: found.run, trace: Some(found.trace), facts: found.releases }
        }
        _ => plain(terms, run),
    }
}

/// Calls that no history records, where one explains what differs.
fn with_assumptions(trace: &Trace, recorded: &Recorded, found: Found) -> Found {
    if found.run.verdict.is_exact() {
        return found;
    }
    let known = found.trace.as_ref().unwrap_or(trace);
    let Some(assume::Explained { facts, terms, mut run }) =
        assume::explain(known, recorded, &found.terms, &found.facts, &found.run)
    else {
        return found;
    };
    let new = facts.iter().filter(|fact| !found.facts.contains(fact));
    let told = new.filter_map(|(op, fact)| Some((op, assume::describe(fact)?)));
    run.verdict.inferred = found.run.verdict.inferred.clone();
    run.verdict.inferred.extend(told.map(|(op, what)| format!("{what}, from operation {op} on")));
    Found { run, facts, terms, ..found }
}

/// Without a capacity given, expandable segments count as reserved without bound. Where that shows
/// (a segment was full), the capacities that the refusals allow are tried.
fn with_capacity(trace: &Trace, recorded: &Recorded, terms: Terms) -> (Terms, Run) {
    let mut best = lockstep::run(trace, recorded, &terms, &[]);
    if best.verdict.is_exact() || terms.capacity.is_some() {
        return (terms, best);
    }
    let mut best_terms = terms.clone();
    for capacity in capacities(recorded) {
        let terms = Terms { capacity: Some(capacity), ..terms.clone() };
        let mut run = lockstep::run(trace, recorded, &terms, &[]);
        if run.equal_events <= best.equal_events && !run.verdict.is_exact() {
            continue;
        }
        run.verdict.inferred.push(format!(
            "the capacity of the device, which decides how much address space an expandable segment has: {capacity}"
        ));
        best = run;
        best_terms = terms;
        if best.verdict.is_exact() {
            break;
        }
    }
    (best_terms, best)
}

/// Capacities that agree with when the device refused; none where it never did, or where no segment
/// is expandable.
fn capacities(recorded: &Recorded) -> Vec<Bytes> {
    let granule = Bytes::mib(20);
    let (mut reserved, mut most, mut refused) = (recorded_start(recorded), Bytes::ZERO, None);
    let mut is_expandable = false;
    for window in recorded.first_event.windows(2) {
        let events = || recorded.events.range(window[0] as usize..window[1] as usize);
        let Some(last) = events().next_back() else { continue };
        let releases =
            |event: Event| matches!(event.action, Action::SegmentFree | Action::SegmentUnmap);
        let asks = matches!(last.action, Action::Alloc | Action::Oom);
        if asks && (last.action == Action::Oom || events().any(releases)) {
            let bound = reserved + last.size.round_up(granule);
            refused = Some(refused.map_or(bound, |known: Bytes| known.min(bound)));
        }
        for event in events() {
            match event.action {
                Action::SegmentAlloc => reserved += event.size,
                Action::SegmentMap => {
                    reserved += event.size;
                    is_expandable = true;
                }
                Action::SegmentFree | Action::SegmentUnmap => {
                    reserved = reserved.saturating_sub(event.size);
                }
                Action::Oom => {
                    let shown = reserved + Bytes(event.addr.0);
                    refused = Some(refused.map_or(shown, |known: Bytes| known.min(shown)));
                }
                _ => {}
            }
            most = most.max(reserved);
        }
    }
    let Some(refused) = refused.filter(|_| is_expandable) else { return Vec::new() };
    // From the largest that explains the refusals down to what was reserved; then above, where the
    // context and other processes hold some of the device.
    const STEPS: u64 = 48;
    let span = refused.saturating_sub(most).0;
    let below = (0..=STEPS).map(|i| Bytes(refused.0 - span * i / STEPS));
    let above = (1..=32).map(|i| refused + Bytes::mib(64 * i));
    below.chain(above).collect()
}

fn recorded_start(recorded: &Recorded) -> Bytes {
    let change = |event: Event| match event.action {
        Action::SegmentAlloc | Action::SegmentMap => i128::from(event.size.0),
        Action::SegmentFree | Action::SegmentUnmap => -i128::from(event.size.0),
        _ => 0,
    };
    let change: i128 = recorded.events.iter().map(change).sum();
    let start = i128::from(recorded.end.reserved().0) - change;
    Bytes(u64::try_from(start).unwrap_or(0))
}

/// The newest release of each behaviour within the range.
fn candidates((oldest, newest): (Release, Release)) -> Vec<Release> {
    // What a single stream without private pools can tell apart, newest release of each.
    const BEHAVIOURS: [u8; 6] = [15, 14, 12, 11, 9, 3];
    let mut all: Vec<Release> = Vec::new();
    for release in RELEASES.into_iter().rev().filter(|r| (oldest..=newest).contains(r)) {
        let is_last_of_kind = BEHAVIOURS.contains(&release.minor());
        if is_last_of_kind || all.is_empty() {
            all.push(release);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::DeviceIndex,
        trace::{RecordedSettings, TraceBuilder},
    };

    fn release(text: &str) -> Release {
        text.parse().unwrap()
    }

    fn recorded(conf: &str) -> Trace {
        let mut builder = TraceBuilder::new(DeviceIndex(0));
        builder.recorded(Recorded {
            releases: (release("2.10"), release("2.11")),
            settings: Some(RecordedSettings { conf: conf.into(), ..RecordedSettings::default() }),
            first_event: vec![0],
            ..Recorded::default()
        });
        builder.build()
    }

    #[test]
    fn one_release_of_each_behaviour_is_tried_the_newest_first() {
        let tried = |oldest, newest| {
            let all = candidates((release(oldest), release(newest)));
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(tried("2.1", "2.15"), "2.15 2.14 2.12 2.11 2.9 2.3");
        assert_eq!(tried("2.4", "2.6"), "2.6");
        assert_eq!(tried("2.8", "2.10"), "2.10 2.9");
    }

    #[test]
    fn settings_that_no_release_takes_leave_nothing_to_compare() {
        let options = VerifyOptions::default();
        let refused = refused_settings(&recorded("max_split_mb:20"), &options);
        assert_eq!(refused.unwrap().0, release("2.11"));
        assert!(!verify_trace(&recorded("max_split_mb:20"), &options).is_exact());
        assert!(refused_settings(&recorded("max_split_size_mb:20"), &options).is_none());
        let given = VerifyOptions { conf: Some(String::new()), ..options };
        assert!(refused_settings(&recorded("max_split_mb:20"), &given).is_none());
    }
}
