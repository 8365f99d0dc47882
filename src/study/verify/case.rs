//! Golden cases: every answer, event, statistic and layout.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::{Difference, LayoutVerdict, Verdict};
use crate::{
    base::{AllocId, Bytes, DeviceIndex, Release, StreamId, Table},
    models::pytorch::{PyTorch, PyTorchConfig},
    observe::{Columns, DeviceStats, Record, Stat, StatsTally},
    sim::{AddressPolicy, AllocError, Allocator, Device, DeviceConfig},
    trace::{
        AllocOp, Answer, Asked, BlockState, Case, CaseAddresses, CaseSetup, CaseStep, Control,
        Event, FreeOp, Layout, Query,
    },
};

/// What runs a case: an allocator for each device, and the script's names.
struct Runner {
    release: Release,
    devices: Vec<(PyTorch, StatsTally)>,
    current: usize,
    /// Which device and allocation a name stands for.
    names: FxHashMap<i64, (usize, AllocId)>,
    next_id: u32,
}

/// Runs a case through the model and compares everything it holds.
pub fn verify_case(case: &Case) -> Verdict {
    let mut verdict = Verdict { release: case.setup.release, ..Verdict::default() };
    verdict.expect(case.steps.iter().flat_map(|step| &step.events).map(|(_, event)| *event));
    let mut runner = match Runner::new(&case.setup) {
        Ok(runner) => runner,
        Err(text) => {
            verdict.difference = Some(difference("line 1", "", "the settings work", &text));
            return verdict;
        }
    };
    for step in &case.steps {
        verdict.ops += 1;
        let (answer, mut events) = runner.step(&step.asked);
        let mut recorded: Vec<(DeviceIndex, Event)> = step.events.clone();
        if step.is_unordered {
            events.sort_unstable();
            recorded.sort_unstable();
        }
        let found = compare_answers(step, &answer, runner.release)
            .or_else(|| compare_events(step, &recorded, &events));
        if let Some(mut found) = found {
            if runner.devices.iter().any(|(model, _)| model.is_damaged()) {
                found.likely = super::DAMAGED.into();
            }
            found.around = runner.devices[runner.current].0.layout().to_string();
            verdict.difference = Some(found);
            return verdict;
        }
        verdict.confirm(step.events.iter().map(|(_, event)| event));
    }
    verdict.difference = runner.compare_end(case);
    verdict.layout = match verdict.difference {
        None => LayoutVerdict::Identical,
        Some(_) => LayoutVerdict::Differs,
    };
    verdict
}

fn difference(place: &str, asked: &str, recorded: &str, modelled: &str) -> Difference {
    Difference {
        place: place.to_owned(),
        asked: asked.to_owned(),
        recorded: recorded.to_owned(),
        modelled: modelled.to_owned(),
        around: String::new(),
        likely: "the model is wrong here, or the case was changed after it was recorded".into(),
    }
}

/// The device that a case was recorded on.
fn device_of(setup: &CaseSetup, index: u8) -> Device {
    let addresses = match setup.addresses {
        CaseAddresses::Rising => AddressPolicy::Rising,
        CaseAddresses::Falling => AddressPolicy::Falling,
        CaseAddresses::FirstFit => AddressPolicy::FirstFit,
        CaseAddresses::Random(seed) => AddressPolicy::Random { seed },
    };
    Device::new(DeviceConfig {
        context: setup.context,
        addresses,
        ..DeviceConfig::new(DeviceIndex(index), setup.total)
    })
}

impl Runner {
    fn new(setup: &CaseSetup) -> Result<Self, String> {
        let release = setup.release;
        let conf = super::conf_of(release, &setup.settings).map_err(|error| error.to_string())?;
        let streams = Table::from_rows(setup.streams.clone());
        let devices = (0..setup.devices).map(|index| {
            let config = PyTorchConfig {
                conf: conf.clone(),
                caching: setup.caching,
                events: setup.events,
                ..PyTorchConfig::new(release)
            };
            let stats = StatsTally::new(conf.max_split_size);
            (PyTorch::new(config, device_of(setup, index), &streams, &Table::default()), stats)
        });
        Ok(Self {
            release,
            devices: devices.collect(),
            current: 0,
            names: FxHashMap::default(),
            next_id: 0,
        })
    }

    /// Does one step; what came back and what happened.
    fn step(&mut self, asked: &Asked) -> (Answer, Vec<(DeviceIndex, Event)>) {
        let mut records: Vec<Record> = self.devices.iter().map(|_| Record::default()).collect();
        let answer = self.answer(asked, &mut records).unwrap_or_else(|error| match error {
            error if error.is_oom() => Answer::Oom(error.to_string()),
            error => Answer::Error(error.to_string()),
        });
        let names_pools = self.release.at_least(8);
        let mut events = Vec::new();
        for (index, record) in records.into_iter().enumerate() {
            for mut event in record.events.iter() {
                if !names_pools {
                    event.pool = crate::base::PoolId::DEFAULT;
                }
                // The history of 2.1 does not name the device.
                let device = if self.release.at_least(2) { index } else { 0 };
                events.push((DeviceIndex::from_index(device), event));
            }
        }
        (answer, events)
    }

    fn answer(&mut self, asked: &Asked, records: &mut [Record]) -> Result<Answer, AllocError> {
        let current = self.current;
        let unknown = |name: i64| AllocError::Failed(format!("script: unknown id {name}"));
        match asked {
            Asked::Alloc(name, size, stream) => {
                return self.alloc(*name, *size, *stream, &mut records[current]);
            }
            Asked::Free(name) => {
                let (device, id) = self.names.remove(name).ok_or_else(|| unknown(*name))?;
                let (model, stats) = &mut self.devices[device];
                let op = FreeOp { id, pending: false };
                model.free(&op, &mut (stats, &mut records[device]));
            }
            Asked::RecordStream(name, stream) => {
                let (device, id) = *self.names.get(name).ok_or_else(|| unknown(*name))?;
                self.devices[device].0.record_stream(id, *stream);
            }
            Asked::EmptyCache => {
                for ((model, stats), record) in self.devices.iter_mut().zip(records) {
                    model.empty_cache(&mut (stats, record))?;
                }
            }
            Asked::Control(control) => self.control(control, records)?,
            Asked::Device(device) => self.current = usize::from(device.0),
            Asked::Query(query) => return self.query(query, records),
        }
        Ok(Answer::Nothing)
    }

    fn alloc(
        &mut self,
        name: i64,
        size: Bytes,
        stream: StreamId,
        record: &mut Record,
    ) -> Result<Answer, AllocError> {
        let id = AllocId(self.next_id);
        self.next_id += 1;
        let (model, stats) = &mut self.devices[self.current];
        let op = AllocOp { id, stream, pool: None, size };
        let addr = model.malloc(&op, &mut (stats, record))?;
        self.names.insert(name, (self.current, id));
        Ok(Answer::Addr(addr.unwrap_or_default()))
    }

    /// Settings and events are the process's, everything else is the current device's.
    fn control(&mut self, control: &Control, records: &mut [Record]) -> Result<(), AllocError> {
        let everywhere =
            matches!(control, Control::Settings(_) | Control::EmptyPool(_) | Control::Events(_))
                || *control == Control::Complete(None);
        let current = self.current;
        let mut result = Ok(());
        for (index, (model, stats)) in self.devices.iter_mut().enumerate() {
            if everywhere || index == current {
                let done = model.control(control, &mut (stats, &mut records[index]));
                result = result.and(done);
            }
        }
        result
    }

    fn query(&mut self, query: &Query, records: &mut [Record]) -> Result<Answer, AllocError> {
        let (model, stats) = &mut self.devices[self.current];
        Ok(match query {
            Query::Stats => Answer::Stats(stats_json(&stats.stats(), self.release)),
            Query::Snapshot(pool) => {
                let mut all = Vec::new();
                for (index, (model, _)) in self.devices.iter_mut().enumerate() {
                    model.control(&Control::Snapshot(*pool), &mut records[index])?;
                    let layout = model.layout_of(*pool);
                    if !layout.segments.is_empty() {
                        all.push((DeviceIndex::from_index(index), layout));
                    }
                }
                Answer::Snapshot(all)
            }
            Query::MemInfo => {
                let device = model.device();
                Answer::Pair(device.free_bytes().0, device.total().0)
            }
            #[expect(clippy::cast_precision_loss, reason = "compared as recorded, in doubles")]
            Query::CacheInfo => Answer::Number(model.largest_available().0 as f64),
            Query::Base(name) => {
                let unknown = AllocError::Failed(format!("script: unknown id {name}"));
                let (device, id) = *self.names.get(name).ok_or(unknown)?;
                match self.devices[device].0.base_of(id) {
                    Some(span) => Answer::Pair(span.start.0, span.size.0),
                    None => Answer::Pair(0, 0),
                }
            }
            Query::Fraction => Answer::Number(model.memory_fraction()),
            Query::Config => {
                let config = super::config_json(model.conf(), self.release);
                // The settings are read from a snapshot.
                for ((model, _), record) in self.devices.iter_mut().zip(records) {
                    model.control(&Control::Snapshot(None), record)?;
                }
                Answer::Config(config)
            }
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            Query::PoolUseCount(pool) => Answer::Number(model.pool_use_count(*pool) as f64),
        })
    }

    fn compare_end(&self, case: &Case) -> Option<Difference> {
        let mut layouts = Vec::new();
        for (index, (model, _)) in self.devices.iter().enumerate() {
            let layout = model.layout();
            if !layout.segments.is_empty() {
                layouts.push((DeviceIndex::from_index(index), layout));
            }
        }
        let recorded = stats_text(&case.end_stats);
        let modelled = stats_text(&stats_json(&self.devices[0].1.stats(), self.release));
        compare_layouts("the end", &case.end, &layouts).or_else(|| {
            (recorded != modelled).then(|| {
                let (recorded, modelled) = first_line_that_differs(&recorded, &modelled);
                difference("the end", "stats", &recorded, &modelled)
            })
        })
    }
}

/// An error text without the place in PyTorch's source, which the model does not have.
fn without_place(text: &str) -> String {
    let Some((condition, rest)) = text.split_once(" INTERNAL ASSERT FAILED at \"") else {
        return text.trim_end().to_owned();
    };
    let message = rest.split_once("report a bug to PyTorch. ").map_or("", |(_, message)| message);
    format!("{condition} INTERNAL ASSERT FAILED {message}").trim_end().to_owned()
}

fn compare_answers(step: &CaseStep, modelled: &Answer, release: Release) -> Option<Difference> {
    let place = format!("operation {} (line {})", step.number, step.line);
    let asked = format!("{:?}", step.asked);
    let (recorded, modelled) = match (&step.answer, modelled) {
        (Answer::Snapshot(recorded), Answer::Snapshot(modelled)) => {
            return compare_layouts(&place, recorded, modelled);
        }
        (Answer::Error(recorded), Answer::Error(modelled)) => {
            (without_place(recorded), modelled.trim_end().to_owned())
        }
        (Answer::Stats(recorded), Answer::Stats(modelled)) => {
            (stats_text(recorded), stats_text(modelled))
        }
        (Answer::Config(recorded), Answer::Config(modelled)) => {
            if recorded.is_null() && !release.at_least(2) {
                return None;
            }
            (stats_text(recorded), stats_text(modelled))
        }
        // Numbers of the recording are printed with six digits.
        (Answer::Number(a), Answer::Number(b)) if (a - b).abs() <= 1e-5 * a.abs() => return None,
        (recorded, modelled) => (format!("{recorded:?}"), format!("{modelled:?}")),
    };
    if recorded == modelled {
        return None;
    }
    let (recorded, modelled) = first_line_that_differs(&recorded, &modelled);
    Some(difference(&place, &asked, &recorded, &modelled))
}

fn first_line_that_differs(a: &str, b: &str) -> (String, String) {
    let pair = a.lines().zip(b.lines()).find(|(a, b)| a != b).unwrap_or((a, b));
    (pair.0.to_owned(), pair.1.to_owned())
}

fn compare_events(
    step: &CaseStep,
    recorded: &[(DeviceIndex, Event)],
    modelled: &[(DeviceIndex, Event)],
) -> Option<Difference> {
    let longest = recorded.len().max(modelled.len());
    let at = (0..longest).find(|i| recorded.get(*i) != modelled.get(*i))?;
    let show = |events: &[(DeviceIndex, Event)]| match events.get(at) {
        Some((_, event)) => event.to_string(),
        None => "nothing more".to_owned(),
    };
    let place = format!("operation {} (line {}), event {at}", step.number, step.line);
    let asked = format!("{:?}", step.asked);
    Some(difference(&place, &asked, &show(recorded), &show(modelled)))
}

fn compare_layouts(
    place: &str,
    recorded: &[(DeviceIndex, Layout)],
    modelled: &[(DeviceIndex, Layout)],
) -> Option<Difference> {
    let lines = |all: &[(DeviceIndex, Layout)]| -> Vec<String> {
        let segments = all.iter().flat_map(|(device, layout)| {
            layout.segments.iter().map(move |segment| {
                let state = |b: &crate::trace::BlockLayout| match b.state {
                    BlockState::ActiveAllocated => "",
                    BlockState::ActivePendingFree => "~",
                    BlockState::Inactive => ".",
                };
                let blocks: Vec<String> = segment
                    .blocks
                    .iter()
                    .map(|b| format!("{}{}({})", state(b), b.size.0, b.requested.0))
                    .collect();
                format!(
                    "device {device} {} stream {} pool {} small {} expandable {} | {}",
                    segment.addr,
                    segment.stream,
                    segment.pool,
                    segment.is_small,
                    segment.is_expandable,
                    blocks.join(" | ")
                )
            })
        });
        segments.collect()
    };
    let (recorded, modelled) = (lines(recorded), lines(modelled));
    let longest = recorded.len().max(modelled.len());
    let at = (0..longest).find(|i| recorded.get(*i) != modelled.get(*i))?;
    let show = |all: &[String]| all.get(at).cloned().unwrap_or_else(|| "no more segments".into());
    Some(difference(place, "layout", &show(&recorded), &show(&modelled)))
}

/// One line a key, so that a difference names its key.
fn stats_text(value: &Value) -> String {
    let Value::Object(map) = value else { return value.to_string() };
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    keys.iter().map(|key| format!("{key}: {}\n", map[*key])).collect()
}

/// Statistics in the form of the golden cases.
fn stats_json(stats: &DeviceStats, release: Release) -> Value {
    let stat = |s: &Stat| Value::from(vec![s.current, s.peak, s.allocated, s.freed()]);
    let columns =
        |c: &Columns| Value::from(vec![stat(&c.all()), stat(&c.small_pool), stat(&c.large_pool)]);
    let mut map = serde_json::Map::new();
    for (key, family) in [
        ("allocation", &stats.allocation),
        ("segment", &stats.segment),
        ("active", &stats.active),
        ("inactive_split", &stats.inactive_split),
        ("allocated_bytes", &stats.allocated_bytes),
        ("reserved_bytes", &stats.reserved_bytes),
        ("active_bytes", &stats.active_bytes),
        ("inactive_split_bytes", &stats.inactive_split_bytes),
        ("requested_bytes", &stats.requested_bytes),
    ] {
        map.insert(key.into(), columns(family));
    }
    map.insert("oversize_allocations".into(), stat(&stats.oversize_allocations));
    map.insert("oversize_segments".into(), stat(&stats.oversize_segments));
    map.insert("num_alloc_retries".into(), stats.num_alloc_retries.into());
    map.insert("num_ooms".into(), stats.num_ooms.into());
    map.insert("max_split_size".into(), stats.max_split_size.into());
    if release.at_least(3) {
        map.insert("num_sync_all_streams".into(), stats.num_sync_all_streams.into());
        map.insert("num_device_alloc".into(), stats.num_device_alloc.into());
        map.insert("num_device_free".into(), stats.num_device_free.into());
    }
    if release.at_least(12) {
        map.insert("num_oom_rejections".into(), stats.num_oom_rejections.into());
    }
    if release.at_least(13) {
        let pools = stats.reserved_bytes_by_private_pools.iter();
        let pools: Vec<Value> = pools
            .map(|(id, pool)| Value::from(vec![Value::from(vec![id.0, id.1]), columns(pool)]))
            .collect();
        map.insert("reserved_bytes_by_private_pools".into(), pools.into());
    }
    Value::Object(map)
}
