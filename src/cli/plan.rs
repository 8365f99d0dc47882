//! What a trace says of the terms under which it is replayed.

use std::path::Path;

use anyhow::{Context, bail};

use super::load::{self, Input};
use crate::{
    base::{Bytes, DeviceIndex, Release, StreamId},
    models::pytorch::conf::AllocConf,
    sim::AddressPolicy,
    source::snapshot::Snapshot,
    study::verify::{VerifyOptions, recorded_conf, resolved},
    trace::{Action, Asked, Case, CaseAddresses, EventMode, Recorded, Trace, TraceBuilder},
};

/// Stands for a device without limits.
pub(super) const NO_LIMIT: Bytes = Bytes(1 << 44);

/// What is typed of a trace and of how it is read.
pub(super) struct Source<'a> {
    /// The file.
    pub(super) trace: &'a Path,
    /// Which device of it.
    pub(super) device: Option<u8>,
    /// Whether settings are given, so that those of the recording do not count.
    pub(super) has_conf: bool,
    /// The release that is asked for.
    pub(super) torch: Option<Release>,
}

/// What is to be replayed, and what its source says of the terms.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) trace: Trace,
    pub(super) release: Option<Release>,
    pub(super) conf: Option<AllocConf>,
    pub(super) capacity: Option<Bytes>,
    pub(super) events: EventMode,
    pub(super) addresses: Option<AddressPolicy>,
    pub(super) context: Bytes,
    pub(super) caching: bool,
    pub(super) notes: Vec<String>,
}

impl Plan {
    fn of(trace: Trace) -> Self {
        Self {
            trace,
            release: None,
            conf: None,
            capacity: None,
            events: EventMode::Ready,
            addresses: None,
            context: Bytes::ZERO,
            caching: true,
            notes: Vec::new(),
        }
    }
}

/// Reads the input and takes out the device that is asked for.
pub(super) fn plan(args: &Source) -> anyhow::Result<Plan> {
    plan_of(args, load::open(args.trace)?)
}

/// The same of what was read, with the snapshot itself if it is one: it holds the stacks.
pub(super) fn plan_and_snapshot(
    args: &Source,
    input: Input,
) -> anyhow::Result<(Plan, Option<Box<Snapshot>>)> {
    match input {
        Input::Snapshot(snapshot) => {
            let traces = snapshot.histories().with_context(|| args.trace.display().to_string())?;
            let plan = recorded_plan(traces, snapshot.warnings.clone(), args)?;
            Ok((plan, Some(snapshot)))
        }
        other => Ok((plan_of(args, other)?, None)),
    }
}

fn plan_of(args: &Source, input: Input) -> anyhow::Result<Plan> {
    let wanted = args.device.map(DeviceIndex);
    match input {
        Input::Trace(trace) => {
            if wanted.is_some_and(|wanted| wanted != trace.device()) {
                bail!(
                    "{}: it has no operations of device {}, only of device {}",
                    args.trace.display(),
                    wanted.unwrap_or_default(),
                    trace.device()
                );
            }
            Ok(Plan::of(*trace))
        }
        Input::Case(case) => case_plan(&case, wanted.unwrap_or_default())
            .with_context(|| args.trace.display().to_string()),
        Input::Snapshot(snapshot) => {
            let (traces, warnings) =
                load::traces_of(snapshot).with_context(|| args.trace.display().to_string())?;
            recorded_plan(traces, warnings, args)
        }
        Input::Packed(packed) => recorded_plan(packed.traces, packed.overview.warnings, args),
    }
}

/// The device of a recording that is asked for.
fn recorded_plan(traces: Vec<Trace>, warnings: Vec<String>, args: &Source) -> anyhow::Result<Plan> {
    let wanted = args.device.map(DeviceIndex);
    let devices: Vec<String> = traces.iter().map(|t| t.device().to_string()).collect();
    let mut traces = traces.into_iter();
    let trace = match wanted {
        Some(wanted) => traces.find(|trace| trace.device() == wanted),
        None => traces.next(),
    };
    let Some(trace) = trace else {
        bail!(
            "{}: it has no history of device {}, only of device {}; choose one with --device",
            args.trace.display(),
            wanted.unwrap_or_default(),
            devices.join(" and ")
        );
    };
    let (trace, inferred) = resolved(trace, &VerifyOptions::default());
    let mut plan = Plan::of(trace);
    plan.notes = warnings;
    plan.notes.extend(inferred.into_iter().map(|fact| format!("inferred: {fact}")));
    if devices.len() > 1 {
        let shown = plan.trace.device();
        plan.notes.push(format!(
            "this is device {shown}; the file has devices {}: see --device",
            devices.join(", ")
        ));
    }
    let recorded = plan.trace.recorded();
    if let Some(recorded) = recorded {
        let release = args.torch.unwrap_or(recorded.releases.1);
        plan.release = Some(recorded.releases.1);
        // Settings of another release may not parse here: then they must be given.
        plan.conf = match recorded_conf(release, recorded.settings.as_ref()) {
            _ if args.has_conf => None,
            Ok(conf) => Some(conf),
            Err(error) => {
                return Err(anyhow::Error::new(error).context(format!(
                    "{}: the recording's settings do not work in PyTorch {release}; give others with --conf",
                    args.trace.display()
                )));
            }
        };
        plan.capacity = shown_capacity(recorded);
        plan.notes.extend(recorded.notes.iter().cloned());
    }
    Ok(plan)
}

/// The least capacity that the device must have had: what it had free when a request failed, and
/// what was reserved then.
fn shown_capacity(recorded: &Recorded) -> Option<Bytes> {
    let change = |action: Action| match action {
        Action::SegmentAlloc | Action::SegmentMap => 1,
        Action::SegmentFree | Action::SegmentUnmap => -1,
        _ => 0,
    };
    let mut later: i128 = 0;
    let end = i128::from(recorded.end.reserved().0);
    let mut shown = None;
    recorded.events.last_of(Action::Oom)?;
    for event in recorded.events.iter().rev() {
        if event.action == Action::Oom {
            let total = end - later + i128::from(event.addr.0);
            shown = u64::try_from(total).ok().map(Bytes).max(shown);
        }
        later += change(event.action) * i128::from(event.size.0);
    }
    shown
}

/// The operations of one device of a golden case.
fn case_plan(case: &Case, device: DeviceIndex) -> anyhow::Result<Plan> {
    let setup = &case.setup;
    if device.0 >= setup.devices {
        bail!("the case has no device {device}, only {} from 0", setup.devices);
    }
    let mut builder = TraceBuilder::new(device);
    for stream in &setup.streams {
        builder.stream(*stream)?;
    }
    let mut current = DeviceIndex(0);
    let mut names = rustc_hash::FxHashMap::default();
    for step in &case.steps {
        let here = current == device;
        match &step.asked {
            Asked::Device(device) => current = *device,
            Asked::Alloc(name, size, stream) if here => {
                // A request that failed has no name that could be freed.
                let id = builder.alloc(*size, StreamId(stream.0), None)?;
                if matches!(step.answer, crate::trace::Answer::Addr(_)) {
                    names.insert(*name, id);
                }
            }
            Asked::Free(name) => {
                if let Some(id) = names.remove(name) {
                    builder.free(id, false)?;
                }
            }
            Asked::RecordStream(name, stream) => {
                if let Some(id) = names.get(name) {
                    builder.record_stream(*id, *stream)?;
                }
            }
            Asked::EmptyCache => builder.push(crate::trace::Op::EmptyCache)?,
            Asked::Control(control) if here => builder.control(control.clone())?,
            Asked::Alloc(..) | Asked::Control(_) | Asked::Query(_) => {}
        }
    }
    let mut plan = Plan::of(builder.build());
    plan.release = Some(setup.release);
    let settings = |name: &str| {
        setup.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    plan.conf = Some(AllocConf::from_env(setup.release, settings)?.0);
    plan.capacity = Some(setup.total);
    plan.events = setup.events;
    plan.context = setup.context;
    plan.caching = setup.caching;
    plan.addresses = Some(match setup.addresses {
        CaseAddresses::Rising => AddressPolicy::Rising,
        CaseAddresses::Falling => AddressPolicy::Falling,
        CaseAddresses::FirstFit => AddressPolicy::FirstFit,
        CaseAddresses::Random(seed) => AddressPolicy::Random { seed },
    });
    Ok(plan)
}
