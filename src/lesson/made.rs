//! What a program that is made by formulas takes, beside the real run that it answers to.

use super::real::RealRun;
use crate::{
    base::{Bytes, Release},
    models::pytorch::{PyTorch, PyTorchConfig},
    observe::StatsTally,
    sim::{Device, DeviceConfig, OnOom, replay},
    trace::Trace,
    workload::{self, WorkloadError},
};

/// The release of the recorded runs.
const RELEASE: u8 = 11;

/// How far a peak may be off its real one, in percent.
const MAY_BE_OFF: u64 = 5;

/// A program of `fragsim synth` with the parameters of a recorded run.
#[derive(Clone, Debug)]
pub struct Made {
    /// What makes it, as it is typed.
    pub command: String,
    /// The recorded run, by its name.
    pub name: String,
    /// Peak of what was handed out, by replay under the default settings.
    pub allocated: Bytes,
    /// The same of the recorded run.
    pub real: Bytes,
}

impl Made {
    /// Makes the program and replays what its first device is asked.
    pub(super) fn new(synth: &str, name: &str) -> Result<Self, String> {
        let real =
            RealRun::named(name).ok_or_else(|| format!("scenarios.json has no run '{name}'"))?;
        let trace = made(synth).map_err(|error| format!("'{synth}': {error}"))?;
        let release = Release::new(RELEASE).unwrap_or_default();
        let config = PyTorchConfig::new(release);
        let device = Device::new(DeviceConfig::new(trace.device(), real.capacity));
        let mut tally = StatsTally::new(config.conf.max_split_size);
        let mut model = PyTorch::new(config, device, trace.streams(), trace.pools());
        replay(&trace, &mut model, &mut tally, OnOom::Stop, None);
        let allocated = tally.stats().allocated_bytes.all().peak;
        Ok(Self {
            command: format!("fragsim synth {synth}"),
            name: name.to_owned(),
            allocated: Bytes(u64::try_from(allocated).unwrap_or(0)),
            real: real.allocated,
        })
    }

    /// Whether it takes what the real run took, but for 5 percent.
    pub fn agrees(&self) -> bool {
        let (made, real) = (self.allocated.0, self.real.0);
        u128::from(made.abs_diff(real)) * 100 <= u128::from(real) * u128::from(MAY_BE_OFF)
    }
}

/// `NAME --parameter value …`, as the command line takes it.
fn made(synth: &str) -> Result<Trace, WorkloadError> {
    let mut words = synth.split_whitespace();
    let mut program = (workload::find(words.next().unwrap_or_default())?.make)();
    while let Some(name) = words.next() {
        let name = name.trim_start_matches("--");
        workload::set(program.as_mut(), name, words.next().unwrap_or_default())?;
    }
    let made = workload::synthesize(program.as_ref())?;
    let no_device = || WorkloadError::parameter("devices", "the program has none");
    made.traces.into_iter().next().ok_or_else(no_device)
}
