//! Programs that are made to fragment: the textbook ones.

mod churn;
mod patterns;
mod robson;

use super::{Preset, Workload};
use crate::workload::{
    WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{Tensor, Torch},
};

choice! {
    /// What is done.
    pub enum Kind {
        /// Random sizes, which live for random times.
        Churn = "churn",
        /// Robson's worst case: blocks of doubling sizes, while some of each size stay where no larger
        /// one fits.
        Robson = "robson",
        /// Each round's requests are larger than those of the round before.
        AThenB = "a_then_b",
        /// Each round's requests are smaller than those of the round before.
        BThenA = "b_then_a",
        /// Every other block goes, and then larger ones are asked for.
        Comb = "comb",
        /// A tensor grows by a step, again and again, as a cache does by `torch.cat`.
        Growing = "growing",
        /// Each cycle a large block and a smaller one come and go, and a small one stays. Grows without
        /// bound with `max_split_size_mb` and expandable segments together.
        SplitGrowth = "split_growth",
    }
}

choice! {
    /// How sizes are drawn.
    pub enum Sizes {
        /// Every size alike.
        Uniform = "uniform",
        /// Every doubling alike.
        LogUniform = "log_uniform",
        /// Powers of two.
        Powers = "powers",
        /// The smallest or the largest.
        Two = "two",
    }
}

choice! {
    /// How lifetimes are drawn.
    pub enum Lifetimes {
        /// Most are short, some long.
        Exponential = "exponential",
        /// Every one alike, up to twice the mean.
        Uniform = "uniform",
        /// All the same: first in, first out.
        Fixed = "fixed",
        /// Every doubling alike, up to a hundred times the mean.
        LogUniform = "log_uniform",
    }
}

parameters! {
    /// A program that is made to fragment.
    pub struct Adversarial {
        /// What is done.
        kind: Kind = Kind::Churn;
        /// Smallest size, in KiB.
        small: u64 = 256;
        /// Largest size, in KiB.
        large: u64 = 65_536;
        /// Requests (churn), rounds (a_then_b, b_then_a), teeth (comb), steps (growing), cycles
        /// (split_growth); robson doubles until the largest size.
        rounds: u64 = 5000;
        /// Most bytes live at a time, in MiB (churn, robson, and each round of a_then_b and b_then_a).
        live: u64 = 1024;
        /// Growth of each step, in bytes (growing), and how much larger than a tooth the next request
        /// is (comb).
        step: u64 = 512;
        /// What stays in each cycle, in KiB (split_growth).
        stays: u64 = 2048;
        /// How sizes are drawn (churn).
        sizes: Sizes = Sizes::LogUniform;
        /// How lifetimes are drawn (churn).
        lifetimes: Lifetimes = Lifetimes::Exponential;
        /// Mean lifetime, in requests (churn).
        lifetime: u64 = 50;
        /// Number of streams (churn).
        streams: u64 = 1;
        /// Draws sizes and lifetimes.
        seed: u64 = 0;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "churn", values: &[] },
    Preset { name: "robson", values: &[("kind", "robson"), ("small", "2048")] },
    Preset {
        name: "a-then-b",
        values: &[("kind", "a_then_b"), ("small", "20480"), ("rounds", "8"), ("live", "512")],
    },
    Preset {
        name: "b-then-a",
        values: &[("kind", "b_then_a"), ("small", "20480"), ("rounds", "8"), ("live", "512")],
    },
    Preset { name: "comb", values: &[("kind", "comb"), ("small", "4096"), ("rounds", "200")] },
    Preset {
        name: "growing",
        values: &[("kind", "growing"), ("small", "20480"), ("rounds", "2000")],
    },
    Preset {
        name: "split-growth",
        values: &[
            ("kind", "split_growth"),
            ("large", "93184"),
            ("small", "46592"),
            ("rounds", "100"),
        ],
    },
];

impl Adversarial {
    fn small_bytes(&self) -> u64 {
        self.small << 10
    }

    fn large_bytes(&self) -> u64 {
        self.large << 10
    }

    fn live_bytes(&self) -> u64 {
        self.live << 20
    }
}

fn block(t: &Torch, bytes: u64) -> Tensor {
    t.empty(&[bytes], crate::workload::torch::DType::U8)
}

impl Workload for Adversarial {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("large", self.large, 1..=1 << 30)?;
        in_range("small", self.small, 1..=self.large)?;
        in_range("rounds", self.rounds, 1..=1_000_000)?;
        in_range("live", self.live, 1..=1 << 20)?;
        in_range("step", self.step, 1..=1 << 30)?;
        in_range("stays", self.stays, 1..=1 << 30)?;
        in_range("lifetime", self.lifetime, 1..=1_000_000)?;
        in_range("streams", self.streams, 1..=32)?;
        let refuse = |name, message: &str| Err(WorkloadError::parameter(name, message));
        let is_round = matches!(self.kind, Kind::Robson | Kind::AThenB | Kind::BThenA);
        if is_round && self.live_bytes() < self.large_bytes() {
            return refuse("live", "less than one block of the largest size: make it larger");
        }
        if is_round && self.live_bytes() / self.small_bytes() > 100_000 {
            return refuse("small", "more than 100,000 blocks at a time: choose larger blocks");
        }
        if matches!(self.kind, Kind::AThenB | Kind::BThenA) {
            in_range("rounds", self.rounds, 2..=1000)?;
        }
        Ok(())
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        match self.kind {
            Kind::Churn => self.churn(t),
            Kind::Robson => self.robson(t),
            Kind::AThenB | Kind::BThenA => self.in_order(t),
            Kind::Comb => self.comb(t),
            Kind::Growing => self.grow(t),
            Kind::SplitGrowth => self.split_growth(t),
        }
    }
}
