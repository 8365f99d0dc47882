//! Weights that are converted on the device while they are loaded.

use super::{Preset, Workload};
use crate::workload::{
    Label, WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{DType, Tensor, Torch, drop_list},
};

choice! {
    /// When the originals go.
    pub enum OriginalsGo {
        /// Each right after its conversion.
        Now = "now",
        /// At the end of their layer.
        Layer = "layer",
        /// After the last layer.
        End = "end",
    }
}

parameters! {
    /// Every layer brings two large weights and some small ones; the large ones are converted, layer
    /// by layer, into new tensors.
    pub struct Convert {
        /// Layers.
        layers: u64 = 12;
        /// The first large weight of a layer as it arrives, in MiB.
        w13_in: u64 = 506;
        /// The second one, in MiB.
        w2_in: u64 = 253;
        /// The first large weight after its conversion, in MiB.
        w13: u64 = 530;
        /// The second one, in MiB.
        w2: u64 = 270;
        /// When the originals go.
        free: OriginalsGo = OriginalsGo::Now;
        /// Whether a conversion needs a temporary as large as its result.
        scratch: bool = false;
        /// Tensors of 1 MiB in a layer, which stay.
        other: u64 = 20;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "vllm-41268", values: &[("w13_in", "530"), ("w2_in", "270")] },
    Preset { name: "vllm-41268-padded", values: &[] },
];

impl Convert {
    fn convert(&self, t: &Torch, weight: &mut Tensor, size: u64, old: &mut Vec<Tensor>) {
        let new = mib(t, size);
        if self.scratch {
            drop(t.scratch(size << 20));
        }
        if self.free != OriginalsGo::Now {
            old.push(weight.clone());
        }
        *weight = new;
    }
}

impl Workload for Convert {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("layers", self.layers, 1..=10_000)?;
        in_range("other", self.other, 0..=1000)?;
        let sizes =
            [("w13_in", self.w13_in), ("w2_in", self.w2_in), ("w13", self.w13), ("w2", self.w2)];
        sizes.into_iter().try_for_each(|(name, size)| in_range(name, size, 1..=1 << 20))
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let layer = |_| {
            let large = [mib(t, self.w13_in), mib(t, self.w2_in)];
            (large, (0..self.other).map(|_| mib(t, 1)).collect::<Vec<_>>())
        };
        let mut layers: Vec<_> = (0..self.layers).map(layer).collect();
        t.mark("load");
        let mut old = Vec::new();
        for (large, _) in &mut layers {
            for (weight, size) in large.iter_mut().zip([self.w13, self.w2]) {
                self.convert(t, weight, size, &mut old);
            }
            if self.free == OriginalsGo::Layer {
                drop_list(std::mem::take(&mut old));
            }
            t.mark("layer");
        }
        drop_list(old);
        t.mark("converted");
        t.empty_cache();
        t.mark("empty_cache");
        while let Some((large, other)) = layers.pop() {
            drop(large);
            drop_list(other);
        }
        t.check()
    }
}

fn mib(t: &Torch, size: u64) -> Tensor {
    t.empty_as(&[size << 20], DType::U8, Label::Parameter)
}
