//! [`verify_trace`]: finds the terms under which a recording is exact, or says where it is not.

use super::{
    Verdict,
    lockstep::{self, Run, Terms},
};
use crate::{
    base::{Bytes, RELEASES, Release},
    models::pytorch::conf::{AllocConf, ConfError},
    trace::{RecordedSettings, Trace},
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

/// Runs a recording through the model in lock-step. Without a release given, every behaviour that
/// the file's format allows is tried, the newest first.
pub fn verify_trace(trace: &Trace, options: &VerifyOptions) -> Verdict {
    let Some(recorded) = trace.recorded() else { return Verdict::default() };
    let candidates: Vec<Release> = match options.release {
        Some(release) => vec![release],
        None => candidates(recorded.releases),
    };
    let mut best: Option<Run> = None;
    for release in candidates {
        let conf = match &options.conf {
            Some(text) => AllocConf::from_string(release, text).map(|(conf, _)| conf),
            None => recorded_conf(release, recorded.settings.as_ref()),
        };
        let Ok(conf) = conf else { continue };
        let terms = Terms { release, conf, capacity: options.capacity };
        let run = lockstep::run(trace, recorded, &terms);
        let is_exact = run.verdict.is_exact();
        if best.as_ref().is_none_or(|best| is_exact || run.verdict.ops > best.verdict.ops) {
            best = Some(run);
        }
        if is_exact {
            break;
        }
    }
    let mut verdict = best.map(|run| run.verdict).unwrap_or_default();
    verdict.notes.extend(recorded.notes.iter().cloned());
    verdict
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
