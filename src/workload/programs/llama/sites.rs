//! Where the parts of a model are, and how they are laid out over devices by their sizes.

use super::{Config, Kind};
use crate::workload::torch::{DType, Tensor, Torch};

/// Where a part is used, and how its weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The device.
    pub device: usize,
    /// How its weights are kept.
    pub kind: Kind,
}

/// Where all parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sites {
    /// The embedding.
    pub embed: Site,
    /// Each layer.
    pub layers: Vec<Site>,
    /// The last norm.
    pub norm: Site,
    /// The device that makes the tables of the rotary embedding.
    pub rotary: usize,
    /// The head.
    pub head: Site,
}

impl Sites {
    /// All parts at one site.
    pub fn all(config: &Config, site: Site) -> Self {
        let layers = (0..config.layers).map(|_| site).collect();
        Self { embed: site, layers, norm: site, rotary: site.device, head: site }
    }

    /// Fills the devices in their order up to these limits, in bytes; what is left stays on the host
    /// and is used on the first. The first keeps room for the largest part that is not placed yet.
    ///
    /// # Source
    /// accelerate 1.15, `utils/modeling.py`: `infer_auto_device_map`, whole layers together;
    /// `device_map` of `scenarios/accelerate__dispatch_cpu` and `accelerate__dispatch_2gpu`.
    pub fn inferred(config: &Config, dtype: DType, limits: &[u64]) -> Self {
        let bytes = |numbers: u64| numbers.saturating_mul(dtype.bytes());
        let table = bytes(config.vocab.saturating_mul(config.width));
        let layer = bytes(config.layer_numbers());
        let (norm, rotary) = (bytes(config.width), bytes(config.sides().head()));
        let layers = usize::try_from(config.layers).unwrap_or(usize::MAX);
        let sizes: Vec<u64> = std::iter::once(table)
            .chain(std::iter::repeat_n(layer, layers))
            .chain([norm, rotary, table])
            .collect();

        let on_host = Site { device: 0, kind: Kind::Host };
        let (mut device, mut used) = (0, 0_u64);
        let mut largest_left = sizes.clone();
        for i in (0..sizes.len().saturating_sub(1)).rev() {
            largest_left[i] = largest_left[i].max(largest_left[i + 1]);
        }
        let mut sites = Vec::with_capacity(sizes.len());
        for (i, size) in sizes.iter().enumerate() {
            // What is left after this one, or this one itself if it is the last.
            let reserve = largest_left.get(i + 1).copied().unwrap_or(0);
            while let Some(limit) = limits.get(device) {
                let room = if device == 0 { limit.saturating_sub(reserve) } else { *limit };
                if used.saturating_add(*size) <= room {
                    break;
                }
                (device, used) = (device + 1, 0);
            }
            used = used.saturating_add(*size);
            let is_here = device < limits.len();
            sites.push(if is_here { Site { device, kind: Kind::Frozen } } else { on_host });
        }
        let mut sites = sites.into_iter();
        let mut next = || sites.next().unwrap_or(on_host);
        let embed = next();
        let layers = (0..config.layers).map(|_| next()).collect();
        let (norm, rotary, head) = (next(), next().device, next());
        Self { embed, layers, norm, rotary, head }
    }

    /// What the rotary embedding is given, on its device.
    pub(super) fn rotary_input(&self, t: &Torch, x: &Tensor) -> Tensor {
        t.to_device(x, self.rotary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `device_map` of `scenarios/accelerate__dispatch_cpu` and `accelerate__dispatch_2gpu`.
    #[test]
    fn devices_are_filled_as_accelerate_fills_them() {
        let config = Config {
            layers: 22,
            width: 2048,
            intermediate: 5632,
            heads: 32,
            kv_heads: 4,
            vocab: 32_000,
        };
        let here = |device| Site { device, kind: Kind::Frozen };
        let host = Site { device: 0, kind: Kind::Host };
        let expected = |rest: Site| Sites {
            embed: here(0),
            layers: [vec![here(0); 11], vec![rest; 11]].concat(),
            norm: rest,
            rotary: rest.device,
            head: rest,
        };
        let inferred = |limits: &[u64]| Sites::inferred(&config, DType::BF16, limits);
        assert_eq!(inferred(&[1200 << 20]), expected(host));
        assert_eq!(inferred(&[1200 << 20, 1200 << 20]), expected(here(1)));
        assert_eq!(inferred(&[0]), Sites::all(&config, host));
    }
}
