//! Data-parallel training with states, gradients and weights split over many devices (ZeRO, FSDP):
//! what one of the devices sees.

use super::{
    Preset, Workload,
    cuda_graphs::check_heads,
    decoder::{block_forward, block_numel, block_shapes},
};
use crate::workload::{
    Label, WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{
        DType, EventRef, Optimizer, StreamRef, Tensor, Torch, drop_list,
        optim::{Adam, AdamKind},
    },
};

choice! {
    /// When a gathered buffer may be used again.
    pub enum Release {
        /// It is dropped as soon as its layer is queued; `record_stream` keeps it until the layer ran.
        RecordStream = "record_stream",
        /// It is dropped after the side stream was made to wait for the layer.
        Wait = "wait",
    }
}

choice! {
    /// How the device and its host go together.
    pub enum Pace {
        /// The device keeps up with the host.
        Ready = "ready",
        /// The device does nothing until the host waits for it.
        Late = "late",
    }
}

parameters! {
    /// Blocks of a transformer in bfloat16 with float32 master weights; activations are computed again,
    /// a layer at a time.
    pub struct Fsdp {
        /// What is split: 0 nothing, 1 optimizer states, 2 also gradients, 3 also weights (FSDP).
        stage: u64 = 3;
        /// Number of devices.
        world: u64 = 8;
        /// When a gathered buffer may be used again.
        free: Release = Release::RecordStream;
        /// At most so many gathers ahead of the device; 0 is any number.
        limit: u64 = 0;
        /// How the device and its host go together.
        pace: Pace = Pace::Ready;
        /// Blocks.
        layers: u64 = 12;
        /// Width of the model, in numbers.
        width: u64 = 2048;
        /// Attention heads; they divide the width.
        heads: u64 = 16;
        /// Sequences in a batch.
        batch: u64 = 4;
        /// Tokens in a sequence.
        seq: u64 = 512;
        /// Training steps.
        steps: u64 = 3;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "zero-1", values: &[("stage", "1")] },
    Preset { name: "zero-2", values: &[("stage", "2")] },
    Preset { name: "zero-3", values: &[("stage", "3")] },
    Preset { name: "fsdp-late", values: &[("pace", "late")] },
    Preset { name: "fsdp-late-limit-2", values: &[("pace", "late"), ("limit", "2")] },
];

/// The weights of a layer, whole and flat, and the event after which they are there.
type Gathered = (Tensor, EventRef);

/// One device in training.
struct Rank<'a> {
    t: &'a Torch,
    is: &'a Fsdp,
    /// Numbers in a layer, padded for the shards, and in a shard.
    total: u64,
    part: u64,
    main: StreamRef,
    comm: StreamRef,
    shards: Vec<Tensor>,
    /// Whole weights that stay, where they are not split.
    whole: Vec<Tensor>,
    inflight: Vec<EventRef>,
}

impl<'a> Rank<'a> {
    fn new(t: &'a Torch, is: &'a Fsdp) -> Self {
        let world = if is.stage == 0 { 1 } else { is.world };
        let total = block_numel(is.width).next_multiple_of(world);
        let part = total / world;
        let layers = || 0..is.layers;
        let shards = layers().map(|_| t.parameter(&[part], DType::F32)).collect();
        let whole = || t.empty_as(&[total], DType::BF16, Label::Parameter);
        let whole = layers().filter(|_| is.stage < 3).map(|_| whole()).collect();
        let (main, comm) = (t.current_stream(), t.new_stream());
        Self { t, is, total, part, main, comm, shards, whole, inflight: Vec::new() }
    }

    /// All-gathers the weights of a layer on the side stream.
    fn gather(&mut self, layer: usize) -> Gathered {
        if let Some(whole) = self.whole.get(layer) {
            return (whole.clone(), self.t.record_event(self.main));
        }
        if self.is.limit > 0 && self.inflight.len() as u64 >= self.is.limit {
            self.t.synchronize_event(self.inflight.remove(0));
        }
        let full = self.t.on_stream(self.comm, || {
            let _mine = self.t.to(&self.shards[layer].detach(), DType::BF16);
            self.t.empty_as(&[self.total], DType::BF16, Label::Parameter)
        });
        (full, self.t.record_event(self.comm))
    }

    /// The layer is queued: its weights may go after it.
    fn release(&mut self, (full, _): &Gathered) {
        if self.is.stage < 3 {
            return;
        }
        self.inflight.push(self.t.record_event(self.main));
        if self.is.free == Release::RecordStream {
            full.record_stream(self.main);
        }
    }

    fn block(&self, flat: &Tensor, x: &Tensor) -> Tensor {
        let views = block_shapes(self.is.width).map(|shape| {
            let part = self.t.slice(flat, &[shape.iter().product()]);
            self.t.view(&part, &shape)
        });
        block_forward(self.t, &views, self.is.heads, x.clone())
    }

    /// Returns the inputs of the layers, the output, and the weights that a variable still holds.
    fn forward(&mut self, held: &mut Option<Tensor>) -> (Vec<Tensor>, Tensor) {
        let shape = [self.is.batch, self.is.seq, self.is.width];
        let mut x = self.t.input(&shape, DType::BF16);
        let mut kept = Vec::new();
        let layers = self.shards.len();
        let mut next = Some(self.gather(0));
        for i in 0..layers {
            let current = next.take();
            if i + 1 < layers {
                next = Some(self.gather(i + 1));
            }
            let Some(current) = current else { break };
            kept.push(x.clone());
            x = self.block(&current.0, &x);
            *held = Some(current.0.clone());
            self.release(&current);
        }
        (kept, x)
    }

    /// Reduce-scatters the gradient of a layer on the side stream.
    fn reduce(&self, flat: &Tensor) -> Option<Tensor> {
        if self.is.stage == 0 {
            return flat.grad().map(|grad| self.t.to(&grad, DType::F32).labelled(Label::Gradient));
        }
        self.t.on_stream(self.comm, || {
            let mine = self.t.empty(&[self.part], DType::BF16);
            if let Some(grad) = flat.grad() {
                grad.record_stream(self.comm);
            }
            Some(self.t.to(&mine, DType::F32).labelled(Label::Gradient))
        })
    }

    /// Leaves the gradients in `grads`; returns that of the first layer's input.
    fn backward(
        &mut self,
        mut kept: Vec<Tensor>,
        g: Tensor,
        grads: &mut [Option<Tensor>],
    ) -> Option<Tensor> {
        let mut g = Some(g);
        let mut unreduced = Vec::new();
        let mut next = Some(self.gather(self.shards.len() - 1));
        for i in (0..self.shards.len()).rev() {
            let current = next.take();
            if i > 0 {
                next = Some(self.gather(i - 1));
            }
            let (Some(current), Some(input)) = (current, kept.pop()) else { break };
            let input = input.requires_grad_();
            let flat = current.0.detach().requires_grad_();
            let y = self.t.enable_grad(|| self.block(&flat, &input));
            if let Some(g) = &g {
                self.t.backward_with(&y, g);
            }
            g = input.grad();
            self.release(&current);
            if self.is.stage == 1 {
                unreduced.push((i, flat.clone()));
            } else {
                grads[i] = self.reduce(&flat);
            }
            drop(current);
            drop(y);
            if self.is.stage != 1 {
                drop(flat.take_grad());
            }
            drop(flat);
            drop(input);
        }
        for (i, flat) in unreduced {
            grads[i] = self.reduce(&flat);
            drop(flat.take_grad());
        }
        g
    }

    /// After the step, whole weights are gathered anew from the shards.
    fn gather_stepped(&self) {
        if self.is.stage == 3 {
            return;
        }
        for shard in &self.shards {
            drop(self.t.to(&shard.detach(), DType::BF16));
        }
    }
}

impl Workload for Fsdp {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("stage", self.stage, 0..=3)?;
        in_range("world", self.world, 1..=1 << 20)?;
        in_range("layers", self.layers, 1..=1000)?;
        check_heads(self.width, self.heads)?;
        in_range("batch", self.batch, 1..=1 << 30)?;
        in_range("seq", self.seq, 1..=1 << 30)?;
        in_range("steps", self.steps, 1..=100_000)?;
        if self.limit > 0 && self.stage < 3 {
            let message = "gathers are limited where weights are split: stage 3, or limit 0";
            return Err(WorkloadError::parameter("limit", message));
        }
        Ok(())
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        if self.pace == Pace::Late {
            t.run_late();
        }
        let mut rank = Rank::new(t, self);
        let mut opt = Adam::new(rank.shards.clone(), AdamKind::Foreach);
        // Variables of a loop that live on: the last layer's weights, the last shard's gradient.
        let (mut held, mut last) = (None, None);
        for _ in 0..self.steps {
            drop(held.take());
            let (kept, x) = t.no_grad(|| rank.forward(&mut held));
            let g = t.empty_like(&x);
            drop(x);
            let mut grads = vec![None; rank.shards.len()];
            let g = rank.backward(kept, g, &mut grads);
            drop(last.take());
            last = grads.last().cloned().flatten();
            for (shard, grad) in rank.shards.iter().zip(grads) {
                if let Some(grad) = grad {
                    shard.set_grad(grad);
                }
            }
            opt.step(t);
            drop(g);
            opt.zero_grad();
            rank.gather_stepped();
            t.synchronize();
            rank.inflight.clear();
            t.mark("step");
            t.check()?;
        }
        drop((opt, held, last));
        drop_list(rank.shards);
        drop_list(rank.whole);
        t.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Op;

    /// The most bytes of each label that are live at a time.
    fn most(is: &Fsdp, label: Label) -> u64 {
        let t = Torch::new(1);
        is.run(&t).unwrap();
        let traces = t.finish().unwrap();
        let (mut sizes, mut live, mut most) = (Vec::new(), 0, 0);
        for op in traces[0].ops() {
            match op {
                Op::Alloc(alloc) => {
                    let is_it = traces[0].labels().get(alloc.id) == Some(label.name());
                    sizes.push(if is_it { alloc.size.0 } else { 0 });
                    live += sizes[sizes.len() - 1];
                    most = live.max(most);
                }
                Op::Free(free) => live -= sizes[free.id.0 as usize],
                _ => {}
            }
        }
        most
    }

    /// Rajbhandari et al., "ZeRO", 2020, figure 1: states go by the world, then gradients, then
    /// weights.
    #[test]
    fn each_stage_splits_more() {
        let is = |stage| Fsdp {
            stage,
            layers: 4,
            width: 256,
            heads: 4,
            seq: 64,
            batch: 1,
            ..Fsdp::default()
        };
        let numbers = 4 * block_numel(256);
        for stage in 0..=3 {
            let world = if stage == 0 { 1 } else { 8 };
            assert_eq!(most(&is(stage), Label::OptimizerState), 8 * numbers / world);
            // Master weights, and whole ones: all of them, or two layers of four and a shard's cast.
            let weights = most(&is(stage), Label::Parameter);
            let whole = if stage < 3 { 2 * numbers } else { numbers };
            assert!((4 * numbers / world + whole..).contains(&weights), "{stage}: {weights}");
        }
        let gradients = [0, 1, 2, 3].map(|stage| most(&is(stage), Label::Gradient));
        assert_eq!(gradients[2], gradients[3]);
        assert!(gradients[0] > gradients[1] && gradients[1] > gradients[2], "{gradients:?}");
    }

    #[test]
    fn a_late_device_lets_recorded_memory_pile_up() {
        let late = |limit| {
            let t = Torch::new(1);
            let is =
                Fsdp { pace: Pace::Late, limit, steps: 1, seq: 64, batch: 1, ..Fsdp::default() };
            is.run(&t).unwrap();
            let traces = t.finish().unwrap();
            let (mut pending, mut most) = (0_u64, 0);
            for op in traces[0].ops() {
                match op {
                    Op::Free(free) if free.pending => pending += 1,
                    Op::FreeCompleted(_) => pending -= 1,
                    _ => {}
                }
                most = pending.max(most);
            }
            most
        };
        // All gathered weights of forward and backward, but the last layer's of forward, which a
        // variable still holds, and all gradients; with a limit, gradients alone pile up.
        assert_eq!(late(0), 35);
        assert!((12..20).contains(&late(2)), "{}", late(2));
    }

    #[test]
    fn a_limit_without_gathers_is_refused() {
        let error = Fsdp { stage: 2, limit: 1, ..Fsdp::default() }.check().unwrap_err();
        assert!(error.to_string().starts_with("limit: "), "{error}");
    }
}
