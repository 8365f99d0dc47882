//! `fragsim inspect`.

use std::collections::BTreeMap;

use super::{
    Answer,
    args::{Format, InspectArgs},
    load::{self, Input},
    output::Output,
    progress,
};
use crate::{
    base::{DeviceIndex, PoolId},
    report::{
        inspect::{self, DeviceDocument, HistoryDocument, InspectDocument, PoolDocument},
        to_csv, to_json,
    },
    source::snapshot::{DeviceOverview, HistoryError, Overview},
    study::verify::recorded_conf,
    trace::{Action, BlockState, Case, Layout, Op, Trace},
};

pub(super) fn run(args: &InspectArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let file = args.file.display().to_string();
    let mut document = match progress::during("reading", || load::open(&args.file))? {
        Input::Snapshot(snapshot) => {
            let overview = snapshot.overview();
            let histories = load::traces_of(snapshot).map(|(traces, _)| traces);
            of_recording(&overview, histories.as_deref())
        }
        Input::Packed(packed) if packed.is_program() => {
            let mut document = InspectDocument { kind: "trace", ..InspectDocument::default() };
            document.devices =
                packed.traces.iter().flat_map(|trace| of_trace(trace).devices).collect();
            document
        }
        Input::Packed(packed) => of_recording(&packed.overview, Ok(&packed.traces)),
        Input::Case(case) => of_case(&case),
        Input::Trace(trace) => of_trace(&trace),
    };
    document.file = file;
    match args.format {
        Format::Json => output.line(&to_json(&document))?,
        Format::Csv => output.write(&to_csv(&document, "devices")?)?,
        Format::Text => output.write(&inspect::text(&document))?,
    }
    let histories = document.devices.iter().filter_map(|device| device.history.as_ref());
    let is_broken = histories.clone().any(|history| history.is_contradictory);
    Ok(if is_broken { Answer::Unusable } else { Answer::Yes })
}

fn of_recording(
    overview: &Overview,
    histories: Result<&[Trace], &HistoryError>,
) -> InspectDocument {
    let (oldest, newest) = overview.releases;
    let mut document = InspectDocument {
        kind: "snapshot",
        torch: Some([oldest.to_string(), newest.to_string()]),
        stacks: Some([overview.frames, overview.stacks]),
        warnings: overview.warnings.clone(),
        ..InspectDocument::default()
    };
    if !overview.has_settings {
        document.warnings.push("the settings are not in the file (they are from 2.3 on)".into());
    }
    for (index, known) in overview.devices.iter().enumerate() {
        let device = DeviceIndex::from_index(index);
        let mut shown = of_layout(device, &known.layout);
        if shown.segments == 0 && known.is_without_history() {
            continue;
        }
        if !known.is_without_history() {
            let mut history = of_entries(known);
            match histories {
                Ok(traces) => {
                    if let Some(trace) = traces.iter().find(|trace| trace.device() == device) {
                        describe(trace, &mut history, &mut document);
                        let handles = trace.streams().iter().map(|stream| stream.handle.0);
                        shown.streams.extend(handles);
                    }
                }
                Err(error) => {
                    history.is_contradictory = matches!(error, HistoryError::Inconsistent { .. });
                    history.error = Some(error.to_string());
                }
            }
            shown.history = Some(history);
        }
        shown.streams.sort_unstable();
        shown.streams.dedup();
        document.devices.push(shown);
    }
    document
}

fn describe(trace: &Trace, history: &mut HistoryDocument, document: &mut InspectDocument) {
    let is_asked = |op: &&Op| !matches!(op, Op::FreeCompleted(_));
    history.operations = trace.ops().iter().filter(is_asked).count();
    history.from_the_start = trace.start().segments.is_empty();
    history.segments_before = trace.start().segments.len();
    history.blocks_before = trace.start_ids().len();
    let Some(recorded) = trace.recorded() else { return };
    document.warnings.extend(recorded.notes.iter().cloned());
    if !recorded.vanished.is_empty() && trace.pools().iter().any(|pool| pool.is_private()) {
        document.warnings.push(format!(
            "{} segments came and went without the file saying which pool they belonged to",
            recorded.vanished.len()
        ));
    }
    let release = recorded.releases.1;
    if recorded.settings.is_some() && document.conf.is_none() {
        match recorded_conf(release, recorded.settings.as_ref()) {
            Ok(conf) => {
                let text = conf.to_conf_string(release).unwrap_or_else(|error| error.nearest);
                document.warnings.extend(conf.advice(release));
                document.conf = Some(text);
            }
            Err(error) => document.warnings.push(format!("its settings: {error}")),
        }
    }
}

fn of_entries(device: &DeviceOverview) -> HistoryDocument {
    let counts = Action::ALL.into_iter().map(Action::name).zip(device.entries);
    let entries = counts.filter(|(_, count)| *count > 0).collect();
    HistoryDocument { entries, duration_us: device.duration_us, ..HistoryDocument::default() }
}

fn of_layout(device: DeviceIndex, layout: &Layout) -> DeviceDocument {
    let blocks = || layout.segments.iter().flat_map(|segment| &segment.blocks);
    let in_state = |state| blocks().filter(move |block| block.state == state);
    let free = in_state(BlockState::Inactive);
    let mut pools: BTreeMap<PoolId, u64> = BTreeMap::new();
    for segment in layout.segments.iter().filter(|segment| segment.pool.is_private()) {
        *pools.entry(segment.pool).or_default() += segment.size().0;
    }
    DeviceDocument {
        device: device.0,
        segments: layout.segments.len(),
        reserved_bytes: layout.reserved().0,
        allocated_bytes: layout.bytes_in(BlockState::ActiveAllocated).0,
        pending_bytes: layout.bytes_in(BlockState::ActivePendingFree).0,
        cached_bytes: layout.bytes_in(BlockState::Inactive).0,
        live_blocks: in_state(BlockState::ActiveAllocated).count(),
        largest_free_bytes: free.map(|block| block.size.0).max().unwrap_or(0),
        expandable: layout.segments.iter().any(|segment| segment.is_expandable),
        streams: layout.segments.iter().map(|segment| segment.stream.0).collect(),
        private_pools: pools
            .into_iter()
            .map(|(id, reserved_bytes)| PoolDocument { id: [id.0, id.1], reserved_bytes })
            .collect(),
        history: None,
    }
}

fn of_case(case: &Case) -> InspectDocument {
    let setup = &case.setup;
    let release = setup.release.to_string();
    let mut document = InspectDocument {
        kind: "golden case",
        torch: Some([release.clone(), release]),
        conf: Some(setup.settings.first().map_or_else(String::new, |(_, value)| value.clone())),
        ..InspectDocument::default()
    };
    for index in 0..setup.devices {
        let device = DeviceIndex(index);
        let end = case.end.iter().find(|(known, _)| *known == device);
        let mut shown = match end {
            Some((_, layout)) => of_layout(device, layout),
            None => DeviceDocument { device: index, ..DeviceDocument::default() },
        };
        let mut entries: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (_, event) in
            case.steps.iter().flat_map(|step| &step.events).filter(|(known, _)| *known == device)
        {
            *entries.entry(event.action.name()).or_default() += 1;
        }
        shown.streams = setup.streams.iter().map(|stream| stream.handle.0).collect();
        shown.history = Some(HistoryDocument {
            entries,
            operations: case.steps.len(),
            from_the_start: true,
            ..HistoryDocument::default()
        });
        document.devices.push(shown);
    }
    document
}

fn of_trace(trace: &Trace) -> InspectDocument {
    let mut shown = of_layout(trace.device(), trace.start());
    shown.streams = trace.streams().iter().map(|stream| stream.handle.0).collect();
    let mut entries: BTreeMap<&'static str, u64> = BTreeMap::new();
    for op in trace.ops() {
        let name = match op {
            Op::Alloc(_) => "alloc",
            Op::Free(_) => "free",
            Op::FreeCompleted(_) => "completed",
            Op::RecordStream(..) => "record_stream",
            Op::EmptyCache => "empty_cache",
            Op::Control(_) => "other calls",
        };
        *entries.entry(name).or_default() += 1;
    }
    shown.history = Some(HistoryDocument {
        entries,
        operations: trace.ops().len(),
        from_the_start: trace.start().segments.is_empty(),
        segments_before: trace.start().segments.len(),
        blocks_before: trace.start_ids().len(),
        ..HistoryDocument::default()
    });
    InspectDocument { kind: "trace", devices: vec![shown], ..InspectDocument::default() }
}
