//! What a synthetic run must keep to.

use super::judge::{Figures, Pair, Run, Verdict};

/// How far a peak of allocated bytes may be off, and the median over a family.
pub const ALLOCATED: f64 = 0.05;
pub const ALLOCATED_MEDIAN: f64 = 0.02;
/// A peak of reserved bytes.
pub const RESERVED: f64 = 0.10;
/// Allocations a step.
pub const ALLOCS: f64 = 0.20;
/// A difference of base to variation below this part of the base has no sign worth telling.
pub const FLAT: f64 = 0.01;
/// How far a difference may be off: this part of the real one, and this part of the base.
pub const DIFFERENCE: (f64, f64) = (0.25, 0.02);

/// The variations that others are compared to, where a scenario has one of them.
const BASES: [&str; 24] = [
    "default",
    "none",
    "never",
    "fp32",
    "naive",
    "attn_naive",
    "cat",
    "full",
    "device",
    "one",
    "grad",
    "tensor",
    "keep",
    "zeros_first",
    "adam_foreach",
    "balanced",
    "first_step",
    "record_stream",
    "small_first_shared",
    "f1.0",
    "b32",
    "b64",
    "32x1",
    "same",
];

/// A number of bytes or calls, for ratios: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "for ratios that are shown with three digits")]
pub fn float(n: u64) -> f64 {
    n as f64
}

/// `synthetic / real - 1`; 0 where both are 0.
pub fn off(real: f64, synthetic: f64) -> f64 {
    match real {
        0.0 if synthetic == 0.0 => 0.0,
        0.0 => f64::INFINITY,
        real => synthetic / real - 1.0,
    }
}

impl Pair {
    /// How far requested, allocated and reserved peaks and allocations a step are off.
    pub fn off(&self) -> [f64; 4] {
        let Self { real, synthetic, .. } = self;
        let bytes = |f: fn(&Figures) -> u64| off(float(f(real)), float(f(synthetic)));
        let allocs = off(real.allocs, synthetic.allocs);
        [bytes(|f| f.requested), bytes(|f| f.allocated), bytes(|f| f.reserved), allocs]
    }

    /// What is off by more than it may be.
    pub fn faults(&self) -> Vec<&'static str> {
        let [_, allocated, reserved, allocs] = self.off();
        let faults = [
            (allocated.abs() > ALLOCATED, "allocated"),
            (reserved.abs() > RESERVED, "reserved"),
            (allocs.abs() > ALLOCS, "allocations a step"),
        ];
        faults.into_iter().filter(|(fails, _)| *fails).map(|(_, what)| what).collect()
    }
}

impl Run {
    /// The devices, where both sides ran.
    pub fn pairs(&self) -> &[Pair] {
        match &self.verdict {
            Verdict::Compared { pairs, .. } => pairs,
            _ => &[],
        }
    }

    /// All that is off by more than it may be.
    pub fn faults(&self) -> Vec<&'static str> {
        let mut faults: Vec<_> = self.pairs().iter().flat_map(Pair::faults).collect();
        match &self.verdict {
            Verdict::Compared { oom_step: [real, synthetic], .. } if real != synthetic => {
                faults.push("out-of-memory step");
            }
            Verdict::Refused(_) => faults.push("refused"),
            _ => {}
        }
        faults
    }
}

/// What changes from one run to another, as a part of the base's real peak.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    pub real: f64,
    pub synthetic: f64,
}

impl Difference {
    fn between(base: f64, real: [f64; 2], synthetic: [f64; 2]) -> Self {
        Self { real: (real[1] - real[0]) / base, synthetic: (synthetic[1] - synthetic[0]) / base }
    }

    /// Whether the sign is right, and the size roughly.
    pub fn holds(&self) -> bool {
        let has_sign = self.real.abs() > FLAT;
        let may_be_off = self.real.abs() * DIFFERENCE.0 + DIFFERENCE.1;
        (!has_sign || self.real.signum() == self.synthetic.signum())
            && (self.real - self.synthetic).abs() <= may_be_off
    }
}

/// A base and a variation of one scenario, with what changes in allocated and reserved peaks of the
/// first device.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    pub base: &'a Run,
    pub variation: &'a Run,
    pub allocated: Difference,
    pub reserved: Difference,
}

/// Every base beside its variations, where both were compared.
pub fn changes(runs: &[Run]) -> Vec<Change<'_>> {
    let mut changes = Vec::new();
    for of_scenario in runs.chunk_by(|a, b| a.scenario == b.scenario) {
        let compared: Vec<&Run> =
            of_scenario.iter().filter(|run| !run.pairs().is_empty()).collect();
        let named = |name: &str| compared.iter().find(|run| run.variation == name);
        let base = BASES.iter().find_map(|name| named(name)).or(compared.first());
        let Some(base) = base else { continue };
        for variation in compared.iter().filter(|run| run.variation != base.variation) {
            let [a, b] = [base, variation].map(|run| &run.pairs()[0]);
            let change = |f: fn(&Figures) -> u64| {
                let side = |f: fn(&Figures) -> u64, of: fn(&Pair) -> Figures| {
                    [float(f(&of(a))), float(f(&of(b)))]
                };
                let real = side(f, |pair| pair.real);
                Difference::between(real[0].max(1.0), real, side(f, |pair| pair.synthetic))
            };
            changes.push(Change {
                base,
                variation,
                allocated: change(|f| f.allocated),
                reserved: change(|f| f.reserved),
            });
        }
    }
    changes
}

/// The median of how far things are off, without their signs.
pub fn median(mut off: Vec<f64>) -> Option<f64> {
    off.iter_mut().for_each(|value| *value = value.abs());
    off.sort_by(f64::total_cmp);
    let middle = off.len() / 2;
    match off.len() {
        0 => None,
        n if n % 2 == 1 => Some(off[middle]),
        _ => Some(f64::midpoint(off[middle - 1], off[middle])),
    }
}

/// Compared runs by the real program, in the order of their names.
pub fn families(runs: &[Run]) -> Vec<(&str, Vec<&Run>)> {
    let mut families: std::collections::BTreeMap<&str, Vec<&Run>> = Default::default();
    for run in runs {
        families.entry(&run.program).or_default().push(run);
    }
    families.into_iter().collect()
}
