//! `fragsim replay`.

use std::{fs::File, io::BufWriter, path::Path, time::Instant};

use anyhow::{Context, bail};

use super::{
    Answer,
    args::{Format, OnOomArg, ReplayArgs},
    load::{self, Input},
    output::Output,
    progress,
};
use crate::{
    base::{Bytes, DeviceIndex, OpIndex, Release, StreamId},
    models::pytorch::conf::AllocConf,
    report::{
        events, replay as report,
        replay::{Heading, ReplayDocument, TimingDocument},
        summary::memory_summary,
        to_json,
    },
    sim::{AddressPolicy, OnOom},
    source::snapshot::Snapshot,
    study::{
        verify::{VerifyOptions, recorded_conf, resolved},
        whatif::{Program, Replayed, Start, Terms, whatif},
    },
    trace::{Action, Asked, Case, CaseAddresses, EventMode, Recorded, Trace, TraceBuilder},
};

/// Stands for a device without limits.
const NO_LIMIT: Bytes = Bytes(1 << 44);

/// What is to be replayed, and what its source says of the terms.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) trace: Trace,
    release: Option<Release>,
    conf: Option<AllocConf>,
    capacity: Option<Bytes>,
    events: EventMode,
    addresses: Option<AddressPolicy>,
    context: Bytes,
    caching: bool,
    notes: Vec<String>,
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

pub(super) fn run(args: &ReplayArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let started = Instant::now();
    let plan = progress::during("reading", || plan(args))?;
    let load_s = started.elapsed().as_secs_f64();
    let (program, terms, mut heading) = prepare(args, plan)?;
    let mut times = Vec::new();
    let mut last: Option<Replayed> = None;
    for _ in 0..args.repeat.unwrap_or(1) {
        let started = Instant::now();
        let replayed = whatif(&program, &terms);
        times.push(started.elapsed().as_secs_f64());
        last = Some(replayed);
    }
    let Some(replayed) = last else { bail!("nothing was replayed") };
    if replayed.is_damaged {
        heading.notes.push(
            "max_split_size was lowered at run time and part of a segment was released: what the real allocator does after that is undefined".into(),
        );
    }
    if let Some(path) = &args.events {
        write_events(path, &replayed, output)?;
    }
    let device = program.trace.device().0;
    let mut document = ReplayDocument::new(heading, device, &terms, &replayed);
    if args.repeat.is_some() {
        document.timing = Some(TimingDocument { load_s, replay_s: times });
    }
    if args.summary {
        document.summary = Some(memory_summary(&replayed.stats, device, false));
    }
    match args.format {
        Format::Json => output.line(&to_json(&document))?,
        Format::Text if document.summary.is_some() => {
            output.write(document.summary.as_deref().unwrap_or_default())?;
        }
        Format::Text if args.events.as_deref() == Some(Path::new("-")) => {}
        Format::Text => output.write(&report::text(&document, terms.on_oom))?,
    }
    let fails_again = document.recorded_failures.iter().any(|failure| !failure.served);
    Ok(if document.completed && !fails_again { Answer::Yes } else { Answer::No })
}

/// Reads the input and takes out the device that is asked for.
fn plan(args: &ReplayArgs) -> anyhow::Result<Plan> {
    plan_of(load::open(&args.trace)?, args)
}

/// The same, with the snapshot itself if it is one: it holds the stacks.
pub(super) fn plan_and_snapshot(
    args: &ReplayArgs,
) -> anyhow::Result<(Plan, Option<Box<Snapshot>>)> {
    match load::open(&args.trace)? {
        Input::Snapshot(snapshot) => {
            let traces = snapshot.histories().with_context(|| args.trace.display().to_string())?;
            let plan = recorded_plan(traces, snapshot.warnings.clone(), args)?;
            Ok((plan, Some(snapshot)))
        }
        other => Ok((plan_of(other, args)?, None)),
    }
}

fn plan_of(input: Input, args: &ReplayArgs) -> anyhow::Result<Plan> {
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
fn recorded_plan(
    traces: Vec<Trace>,
    warnings: Vec<String>,
    args: &ReplayArgs,
) -> anyhow::Result<Plan> {
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
    let (trace, inferred) = resolved(&trace, &VerifyOptions::default());
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
        plan.conf = match (&args.conf, recorded_conf(release, recorded.settings.as_ref())) {
            (Some(_), _) => None,
            (None, Ok(conf)) => Some(conf),
            (None, Err(error)) => {
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

/// What is replayed, under which terms, and what is to be said of both.
pub(super) fn prepare(args: &ReplayArgs, plan: Plan) -> anyhow::Result<(Program, Terms, Heading)> {
    let release = args.torch.or(plan.release).unwrap_or_default();
    let conf = match (&args.conf, plan.conf) {
        (Some(text), _) => AllocConf::from_string(release, text)?.0,
        (None, Some(conf)) => conf,
        (None, None) => AllocConf::new(release),
    };
    let mut notes = plan.notes;
    let is_recorded_terms = args.conf.is_none() && args.torch.is_none();
    let start = if is_recorded_terms || plan.trace.recorded().is_none() {
        Start::AsRecorded
    } else {
        Start::Reallocate
    };
    let program = Program::of(&plan.trace, start)?;
    if program.reallocated > 0 {
        notes.push(format!(
            "{} blocks were live before the history began: under these settings they are asked for first, in the order of their addresses",
            program.reallocated
        ));
    }
    let capacity = args.capacity.or(plan.capacity);
    if args.capacity.is_none()
        && let Some(capacity) = plan.capacity
        && plan.trace.recorded().is_some()
    {
        notes.push(format!(
            "capacity {capacity} is what the recording shows at its out-of-memory error (free and reserved, without the context); give --capacity for another"
        ));
    }
    let kept = program.trace.start().reserved();
    let context = args.context.max(plan.context);
    let is_too_small =
        |capacity: &Bytes| kept.checked_add(context).is_none_or(|needed| *capacity < needed);
    if let Some(capacity) = capacity.filter(is_too_small) {
        bail!(
            "{}: a capacity of {capacity} is too small: {kept} are reserved before the first operation, and the context takes {context}",
            args.trace.display()
        );
    }
    let addresses = match args.addresses {
        AddressPolicy::Rising => plan.addresses.unwrap_or_default(),
        given => given,
    };
    let terms = Terms {
        caching: plan.caching && !args.no_caching,
        events: plan.events,
        context,
        external: args.external,
        addresses,
        on_oom: match args.on_oom {
            OnOomArg::Stop => OnOom::Stop,
            OnOomArg::Skip => OnOom::Skip,
        },
        until: args.at.map(OpIndex),
        keeps_events: args.events.is_some(),
        ..Terms::new(release, conf, capacity.unwrap_or(NO_LIMIT))
    };
    let printed = match terms.conf.to_conf_string(release) {
        Ok(text) => text,
        Err(unprintable) => unprintable.nearest,
    };
    notes.extend(terms.conf.advice(release));
    let heading = Heading {
        file: args.trace.display().to_string(),
        conf: printed,
        capacity,
        ops_total: program.asked(),
        notes,
    };
    Ok((program, terms, heading))
}

fn write_events(path: &Path, replayed: &Replayed, output: &mut Output) -> anyhow::Result<()> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        events::write(&replayed.record.events, &mut text)?;
        return output.write(std::str::from_utf8(&text)?);
    }
    let file =
        File::create(path).with_context(|| format!("{}: cannot be written", path.display()))?;
    let mut file = BufWriter::new(file);
    events::write(&replayed.record.events, &mut file)
        .and_then(|()| std::io::Write::flush(&mut file))
        .with_context(|| format!("{}: cannot be written", path.display()))
}
