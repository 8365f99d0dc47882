//! The parameters of training.

use super::{
    Attention, Checkpoint, Distribution, EmptyCache, Lengths, LossLife, Offload, OptimizerKind,
    Pieces, Precision, Resume, Shape, StateBirth, SumLoss, ZeroGrad, check_sizes,
};
use crate::workload::{
    Workload, WorkloadError,
    parameter::{in_range, parameters},
    torch::{DType, Torch},
};

parameters! {
    /// Training of a GPT-like model.
    pub struct Train {
        /// Blocks.
        layers: u64 = 12;
        /// Width of the model, in numbers.
        width: u64 = 768;
        /// Attention heads; they divide the width.
        heads: u64 = 12;
        /// Tokens in the vocabulary.
        vocab: u64 = 50257;
        /// Longest sequence that the model knows, in tokens.
        context: u64 = 4096;
        /// Sequences in a batch.
        batch: u64 = 8;
        /// Tokens in a sequence; the longest where lengths vary.
        seq: u64 = 512;
        /// Training steps.
        steps: u64 = 3;
        /// Type of the weights, the gradients and the optimizer's states.
        weights: DType = DType::F32;
        /// Mixed precision by autocast.
        autocast: Precision = Precision::Bf16;
        /// Whether a GradScaler scales the loss.
        scaler: bool = false;
        /// How attention is computed.
        attention: Attention = Attention::Sdpa;
        /// Pairs of sequence and head at a time, for sliced attention.
        slice: u64 = 4;
        /// Dropout after attention and after the network of each block, as a fraction.
        dropout: f64 = 0.0;
        /// Whether the head is the embedding again.
        tied: bool = true;
        /// Whether a head of its own is made before it is tied, as nn.Linear does.
        spare_head: bool = true;
        /// Activation checkpointing.
        checkpoint: Checkpoint = Checkpoint::Never;
        /// Pieces for checkpointing by segments or even; 0 is the root of the layers.
        segments: u64 = 0;
        /// The optimizer.
        optimizer: OptimizerKind = OptimizerKind::Adam;
        /// When the optimizer's states are made.
        states: StateBirth = StateBirth::FirstStep;
        /// Whether training goes on from a checkpoint, and where that is loaded to.
        resume: Resume = Resume::Never;
        /// When gradients are cleared.
        zero_grad: ZeroGrad = ZeroGrad::BeforeBackward;
        /// Batches of a step, whose losses are divided by it; 0 is one, not divided.
        accumulate: u64 = 0;
        /// How long the loss is kept.
        loss: LossLife = LossLife::Variable;
        /// How losses are added up.
        sum_loss: SumLoss = SumLoss::Item;
        /// Whether the batch and the logits are variables of the loop, too, kept until the next ones.
        keep_logits: bool = false;
        /// Whether there are backward and the optimizer's step.
        backward: bool = true;
        /// Lengths of sequences.
        lengths: Lengths = Lengths::Fixed;
        /// The lengths of lengths = list, in tokens, one a step.
        length_list: Vec<u64> = Vec::new();
        /// Median of drawn lengths, in tokens.
        median: u64 = 270;
        /// Standard deviation of the logarithm of drawn lengths.
        spread: f64 = 0.7;
        /// Shortest drawn length, in tokens.
        shortest: u64 = 32;
        /// Padded lengths are multiples of this, in tokens.
        pad_to: u64 = 128;
        /// Steps that are sorted together, for bucketed lengths.
        bucket: u64 = 8;
        /// What the drawn lengths follow from.
        seed: u64 = 0;
        /// When the cache is emptied.
        empty_cache: EmptyCache = EmptyCache::Never;
        /// Fraction of the device that the process may have; 0 sets none.
        fraction: f64 = 0.0;
        /// Training steps between evaluations; 0 is no evaluation.
        evaluate_every: u64 = 0;
        /// Batches of an evaluation.
        evaluate_batches: u64 = 2;
        /// Sequences in a batch of an evaluation.
        evaluate_batch: u64 = 16;
        /// Tokens in a sequence of an evaluation.
        evaluate_seq: u64 = 512;
        /// Whether an evaluation records a graph, for want of no_grad.
        evaluate_grad: bool = false;
        /// What lives in host memory.
        offload: Offload = Offload::Never;
        /// Devices among which the blocks are split, one after the other.
        devices: u64 = 1;
        /// Tensors that are made and freed before the first step, as autotuning does, in MiB.
        warm_up: Vec<u64> = Vec::new();
        /// Whether the end of backward is marked as well as the end of a step.
        phases: bool = false;
    }
}

impl Train {
    pub(super) fn shape(&self) -> Shape {
        // round(sqrt(layers)), in whole numbers.
        let below = self.layers.isqrt();
        let root = if below * below + below < self.layers { below + 1 } else { below.max(1) };
        let pieces = if self.segments == 0 { root } else { self.segments };
        let pieces = usize::try_from(pieces).unwrap_or(usize::MAX);
        Shape {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            vocab: self.vocab,
            context: self.context,
            dtype: self.weights,
            attention: self.attention,
            slice: self.slice,
            dropout: self.dropout > 0.0,
            tied: self.tied,
            spare_head: self.spare_head && self.tied,
            devices: usize::try_from(self.devices).unwrap_or(1),
            checkpoint: match self.checkpoint {
                Checkpoint::Never => Pieces::None,
                Checkpoint::Block => Pieces::Blocks,
                Checkpoint::Segments => Pieces::Sequential(pieces),
                Checkpoint::Even => Pieces::Even(pieces),
            },
        }
    }

    /// Tokens in a sequence of each step.
    pub fn tokens(&self) -> Vec<u64> {
        let repeated = |list: &[u64]| {
            let steps = usize::try_from(self.steps).unwrap_or(0);
            list.iter().copied().cycle().take(steps).collect()
        };
        let drawn = Distribution {
            median: self.median,
            spread: self.spread,
            shortest: self.shortest,
            longest: self.seq,
        };
        let mut lengths = match self.lengths {
            Lengths::Fixed => return repeated(&[self.seq]),
            Lengths::List => return repeated(&self.length_list),
            _ => drawn.draw(self.steps, self.seed),
        };
        match self.lengths {
            Lengths::Ascending => lengths.sort_unstable(),
            Lengths::Descending => lengths.sort_unstable_by(|a, b| b.cmp(a)),
            Lengths::Bucketed => {
                let bucket = usize::try_from(self.bucket).unwrap_or(usize::MAX).max(1);
                for bucket in lengths.chunks_mut(bucket) {
                    bucket.sort_unstable_by(|a, b| b.cmp(a));
                }
            }
            Lengths::Padded => {
                for length in &mut lengths {
                    *length = length.next_multiple_of(self.pad_to).min(self.context);
                }
            }
            Lengths::Fixed | Lengths::List | Lengths::Random => {}
        }
        lengths
    }

    /// Sequences in a batch of an evaluation, if there is one.
    fn evaluation_batch(&self) -> u64 {
        if self.evaluate_every == 0 { 0 } else { self.evaluate_batch }
    }

    fn check_lengths(&self) -> Result<(), WorkloadError> {
        in_range("seq", self.seq, 2..=self.context)?;
        in_range("shortest", self.shortest, 2..=self.seq)?;
        in_range("median", self.median, 1..=1 << 30)?;
        in_range("pad_to", self.pad_to, 1..=self.context)?;
        in_range("bucket", self.bucket, 1..=1 << 20)?;
        if !(0.0..=10.0).contains(&self.spread) {
            let message = format!("{} is out of range: 0 to 10", self.spread);
            return Err(WorkloadError::parameter("spread", message));
        }
        if self.lengths == Lengths::List && self.length_list.is_empty() {
            let message = "lengths = list needs at least one length here";
            return Err(WorkloadError::parameter("length_list", message));
        }
        self.length_list.iter().try_for_each(|n| in_range("length_list", *n, 2..=self.context))
    }

    fn check_devices(&self) -> Result<(), WorkloadError> {
        in_range("devices", self.devices, 1..=64)?;
        let cannot = |parameter: &str, message: &str| {
            let error = || WorkloadError::parameter(parameter, message);
            if self.devices > 1 { Err(error()) } else { Ok(()) }
        };
        if self.devices > self.layers {
            cannot("devices", "more devices than layers: each needs a block at least")?;
        }
        if self.tied {
            cannot("tied", "a split model has a head of its own: give tied = false")?;
        }
        if self.checkpoint != Checkpoint::Never {
            cannot("checkpoint", "checkpointing goes with one device only")?;
        }
        if self.scaler {
            cannot("scaler", "a GradScaler goes with one device only")?;
        }
        Ok(())
    }
}

impl Workload for Train {
    fn devices(&self) -> u8 {
        u8::try_from(self.devices).unwrap_or(u8::MAX)
    }

    fn check(&self) -> Result<(), WorkloadError> {
        check_sizes(&self.shape(), self.batch.max(self.evaluation_batch()))?;
        in_range("batch", self.batch, 1..=1 << 30)?;
        in_range("steps", self.steps, 1..=1_000_000)?;
        in_range("accumulate", self.accumulate, 0..=100_000)?;
        in_range("segments", self.segments, 0..=self.layers)?;
        in_range("evaluate_batches", self.evaluate_batches, 0..=100_000)?;
        in_range("evaluate_batch", self.evaluate_batch, 1..=1 << 30)?;
        if self.evaluate_every > 0 {
            in_range("evaluate_seq", self.evaluate_seq, 2..=self.context)?;
        }
        self.check_lengths()?;
        self.check_devices()?;
        if self.warm_up.len() > 100_000 {
            return Err(WorkloadError::parameter("warm_up", "more than 100,000 tensors"));
        }
        self.warm_up.iter().try_for_each(|mib| in_range("warm_up", *mib, 1..=1 << 24))?;
        for (name, value) in [("dropout", self.dropout), ("fraction", self.fraction)] {
            if !(0.0..=1.0).contains(&value) {
                let message = format!("{value} is out of range: 0 to 1");
                return Err(WorkloadError::parameter(name, message));
            }
        }
        let half = self.weights != DType::F32;
        if half && self.autocast != Precision::Never {
            let message = "autocast is for float32 weights: give autocast = none";
            return Err(WorkloadError::parameter("autocast", message));
        }
        if half && self.scaler {
            let message = "a GradScaler is for float32 weights: give scaler = false";
            return Err(WorkloadError::parameter("scaler", message));
        }
        if self.attention == Attention::Flash && !half && self.autocast == Precision::Never {
            let message = "flash attention is for half precision: give efficient, or autocast";
            return Err(WorkloadError::parameter("attention", message));
        }
        Ok(())
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        super::training::run(self, t)
    }
}
