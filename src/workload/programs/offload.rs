//! Inference of a Llama-like model that is resident, comes from the host weight by weight, or is spread
//! over devices and the host, as accelerate does it.

use super::{
    Preset, Workload,
    llama::{Config, Kind, Llama, Mask, Site, Sites},
};
use crate::workload::{
    WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{DType, Torch},
};

choice! {
    /// Where the weights are.
    pub enum Placement {
        /// On the device.
        Resident = "resident",
        /// On the host; each comes to the device for its use (cpu_offload).
        Host = "host",
        /// Over devices up to their limits, the rest on the host (device_map).
        Dispatch = "dispatch",
    }
}

parameters! {
    /// Inference with weights in several places.
    pub struct OffloadInfer {
        /// Layers.
        layers: u64 = 22;
        /// Width of the hidden states, in numbers.
        width: u64 = 2048;
        /// Width inside the gated network, in numbers.
        intermediate: u64 = 5632;
        /// Heads of queries; they divide the width.
        heads: u64 = 32;
        /// Heads of keys and values; they divide the heads of queries.
        kv_heads: u64 = 4;
        /// Tokens in the vocabulary.
        vocab: u64 = 32000;
        /// Where the weights are.
        placement: Placement = Placement::Resident;
        /// What weights may take on each device, in MiB, for placement dispatch; one number a device.
        limits: Vec<u64> = vec![1200];
        /// The causal mask: known to the kernel, or a tensor as for packed sequences.
        mask: Mask = Mask::Causal;
        /// Sequences in a batch.
        batch: u64 = 1;
        /// Tokens in a sequence.
        seq: u64 = 512;
        /// Forwards.
        steps: u64 = 2;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "llama-1b", values: &[] },
    Preset {
        name: "llama-7b",
        values: &[
            ("layers", "32"),
            ("width", "4096"),
            ("intermediate", "11008"),
            ("kv_heads", "32"),
        ],
    },
    Preset {
        name: "llama-13b",
        values: &[
            ("layers", "40"),
            ("width", "5120"),
            ("intermediate", "13824"),
            ("heads", "40"),
            ("kv_heads", "40"),
            ("placement", "dispatch"),
            ("limits", "22000"),
        ],
    },
    Preset {
        name: "llama-70b",
        values: &[
            ("layers", "80"),
            ("width", "8192"),
            ("intermediate", "28672"),
            ("heads", "64"),
            ("kv_heads", "8"),
            ("placement", "dispatch"),
            ("limits", "75000,75000"),
        ],
    },
];

impl OffloadInfer {
    fn config(&self) -> Config {
        let Self { layers, width, intermediate, heads, kv_heads, vocab, .. } = *self;
        Config { layers, width, intermediate, heads, kv_heads, vocab }
    }

    fn model(&self, t: &Torch) -> Llama {
        let (config, dtype) = (self.config(), DType::BF16);
        let sites = match self.placement {
            Placement::Resident => return Llama::new(t, &config, dtype, Kind::Frozen),
            Placement::Host => Sites::all(&config, Site { device: 0, kind: Kind::Host }),
            Placement::Dispatch => {
                let limits: Vec<u64> = self.limits.iter().map(|mib| mib << 20).collect();
                Sites::inferred(&config, dtype, &limits)
            }
        };
        Llama::placed(t, &config, dtype, sites)
    }
}

impl Workload for OffloadInfer {
    fn devices(&self) -> u8 {
        match self.placement {
            Placement::Resident | Placement::Host => 1,
            Placement::Dispatch => u8::try_from(self.limits.len()).unwrap_or(u8::MAX),
        }
    }

    fn check(&self) -> Result<(), WorkloadError> {
        self.config().check()?;
        let devices = u64::try_from(self.limits.len()).unwrap_or(u64::MAX);
        if !(1..=64).contains(&devices) {
            let message = "give a limit for each device, and 1 to 64 of them";
            return Err(WorkloadError::parameter("limits", message));
        }
        for limit in &self.limits {
            in_range("limits", *limit, 0..=1 << 30)?;
        }
        in_range("batch", self.batch, 1..=1 << 20)?;
        in_range("seq", self.seq, 1..=1 << 24)?;
        in_range("steps", self.steps, 1..=1_000_000)
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let model = self.model(t);
        t.check()?;
        for _ in 0..self.steps {
            t.no_grad(|| {
                let logits = {
                    let ids = t.input(&[self.batch, self.seq], DType::I64);
                    let (logits, hidden) = model.logits(t, &ids, self.mask);
                    drop(hidden);
                    t.to_device(&logits, 0)
                };
                let row = t.slice(&logits, &[self.batch, self.vocab]);
                drop(logits);
                let next = t.argmax(&row);
                drop(row);
                drop(next);
            });
            t.mark("forward");
            t.check()?;
        }
        Ok(())
    }
}
