//! `fragsim replay`.

use std::{path::Path, time::Instant};

use anyhow::bail;

use super::{
    Answer,
    args::{Format, OnOomArg, ReplayArgs},
    file::write_file,
    output::Output,
    plan::{NO_LIMIT, Plan, Source, plan},
    progress,
};
use crate::{
    base::{Bytes, OpIndex},
    models::pytorch::conf::AllocConf,
    report::{
        events, replay as report,
        replay::{Heading, ReplayDocument, TimingDocument},
        summary::memory_summary,
        to_csv, to_json,
    },
    sim::{AddressPolicy, OnOom},
    study::{
        labels,
        whatif::{Program, Replayed, Start, Terms, whatif},
    },
};

pub(super) fn run(args: &ReplayArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let started = Instant::now();
    let plan = progress::during("reading", || plan(&args.source()))?;
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
    let labels = labels::at_peak(&program.trace, &replayed);
    document.labels = labels.into_iter().map(Into::into).collect();
    if args.summary {
        document.summary = Some(memory_summary(&replayed.stats, device, false));
    }
    match args.format {
        Format::Json => output.line(&to_json(&document))?,
        Format::Csv => output.write(&to_csv(&document, "")?)?,
        Format::Text if document.summary.is_some() => {
            output.write(document.summary.as_deref().unwrap_or_default())?;
        }
        Format::Text if args.events.as_deref() == Some(Path::new("-")) => {}
        Format::Text => output.write(&report::text(&document, terms.on_oom))?,
    }
    let fails_again = document.recorded_failures.iter().any(|failure| !failure.served);
    Ok(if document.completed && !fails_again { Answer::Yes } else { Answer::No })
}

impl ReplayArgs {
    /// What is typed of the trace.
    pub(super) fn source(&self) -> Source<'_> {
        Source {
            trace: &self.trace,
            device: self.terms.on.device,
            has_conf: self.conf.is_some(),
            torch: self.terms.on.torch,
        }
    }
}

/// What is replayed, under which terms, and what is to be said of both.
pub(super) fn prepare(args: &ReplayArgs, plan: Plan) -> anyhow::Result<(Program, Terms, Heading)> {
    let release = args.terms.on.torch.or(plan.release).unwrap_or_default();
    let conf = match (&args.conf, plan.conf) {
        (Some(text), _) => AllocConf::from_string(release, text)?.0,
        (None, Some(conf)) => conf,
        (None, None) => AllocConf::new(release),
    };
    let mut notes = plan.notes;
    let is_recorded_terms = args.conf.is_none() && args.terms.on.torch.is_none();
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
    let capacity = args.terms.of.capacity.or(plan.capacity);
    if args.terms.of.capacity.is_none()
        && let Some(capacity) = plan.capacity
        && plan.trace.recorded().is_some()
    {
        notes.push(format!(
            "capacity {capacity} is what the recording shows at its out-of-memory error (free and reserved, without the context); give --capacity for another"
        ));
    }
    let kept = program.trace.start().reserved();
    let context = args.terms.on.context.max(plan.context);
    let is_too_small =
        |capacity: &Bytes| kept.checked_add(context).is_none_or(|needed| *capacity < needed);
    if let Some(capacity) = capacity.filter(is_too_small) {
        bail!(
            "{}: a capacity of {capacity} is too small: {kept} are reserved before the first operation, and the context takes {context}",
            args.trace.display()
        );
    }
    let addresses = match args.terms.addresses {
        AddressPolicy::Rising => plan.addresses.unwrap_or_default(),
        given => given,
    };
    let terms = Terms {
        caching: plan.caching && !args.no_caching,
        events: plan.events,
        context,
        external: args.terms.on.external,
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
    write_file(path, |mut out| events::write(&replayed.record.events, &mut out))
}
