//! The loop of training.

use super::{
    EmptyCache, Gpt, LossLife, Offload, OptimizerKind, Resume, StateBirth, SumLoss, Train, ZeroGrad,
};
use crate::{
    trace::Control,
    workload::{
        Label, WorkloadError,
        torch::{
            DType, Optimizer, Tensor, Torch,
            optim::{Adafactor, Adam, Adam8, AdamKind, Sgd},
            scaler::GradScaler,
        },
    },
};

/// The variables of the program.
struct Loop<'a> {
    of: &'a Train,
    model: Gpt,
    optimizer: Option<Box<dyn Optimizer>>,
    scaler: Option<GradScaler>,
    ids: Option<Tensor>,
    logits: Option<Tensor>,
    loss: Option<Tensor>,
    total: Option<Tensor>,
}

pub(super) fn run(of: &Train, t: &Torch) -> Result<(), WorkloadError> {
    if of.fraction > 0.0 {
        for device in 0..t.devices() {
            t.on_device(device, || t.control(Control::SetFraction(of.fraction)));
        }
    }
    let model = Gpt::new(t, of.shape());
    t.check()?;
    let mut optimizer = optimizer(of, model.parameters());
    begin(of, t, &model, optimizer.as_deref_mut());
    for mib in &of.warm_up {
        drop(t.scratch(mib << 20));
    }
    let mut variables = Loop {
        of,
        model,
        optimizer,
        scaler: of.scaler.then(GradScaler::default),
        ids: None,
        logits: None,
        loss: None,
        total: None,
    };
    for (step, seq) in (1..).zip(of.tokens()) {
        variables.step(t, step, seq);
        t.check()?;
    }
    Ok(())
}

/// The optimizer, if it is not on the host.
fn optimizer(of: &Train, parameters: Vec<Tensor>) -> Option<Box<dyn Optimizer>> {
    if of.offload != Offload::Never {
        if of.offload == Offload::Gradients {
            parameters.iter().for_each(Tensor::send_gradients_away);
        }
        return None;
    }
    Some(match of.optimizer {
        OptimizerKind::Sgd => Box::new(Sgd::new(parameters, false)),
        OptimizerKind::Momentum => Box::new(Sgd::new(parameters, true)),
        OptimizerKind::Adam => Box::new(Adam::new(parameters, AdamKind::Foreach)),
        OptimizerKind::AdamSingle => Box::new(Adam::new(parameters, AdamKind::Single)),
        OptimizerKind::AdamFused => Box::new(Adam::new(parameters, AdamKind::Fused)),
        OptimizerKind::Adam8 => Box::new(Adam8::new(parameters, true)),
        OptimizerKind::Adam8Fused => Box::new(Adam8::new(parameters, false)),
        OptimizerKind::Adafactor => Box::new(Adafactor::new(parameters)),
    })
}

/// What is there before the first step: states, and what a checkpoint brings.
fn begin(of: &Train, t: &Torch, model: &Gpt, optimizer: Option<&mut (dyn Optimizer + 'static)>) {
    let loaded: Vec<_> = match of.resume {
        Resume::Device => t.labelled(Label::Parameter, || {
            model.parameters().iter().map(|p| t.loaded(p)).collect()
        }),
        Resume::Never | Resume::Host => Vec::new(),
    };
    if let Some(optimizer) = optimizer {
        match of.resume {
            Resume::Device => optimizer.load_states(t),
            Resume::Host => optimizer.make_states(t),
            Resume::Never if of.states == StateBirth::Before => optimizer.make_states(t),
            Resume::Never => {}
        }
    }
    drop(loaded);
}

impl Loop<'_> {
    fn step(&mut self, t: &Torch, step: u64, seq: u64) {
        let of = self.of;
        // Zeros would be written where the gradients are: nothing to do here.
        if of.zero_grad == ZeroGrad::BeforeForward {
            self.zero_grad();
        }
        for _ in 0..of.accumulate.max(1) {
            if t.check().is_err() {
                return; // the rest would not be recorded
            }
            self.forward(t, seq);
            if of.zero_grad == ZeroGrad::BeforeBackward {
                self.zero_grad();
            }
            if of.backward {
                self.backward(t);
            }
        }
        if of.phases {
            t.mark("backward");
        }
        if of.empty_cache == EmptyCache::Backward {
            t.empty_cache();
        }
        if of.backward {
            self.optimize(t);
        }
        self.add_up(t);
        if of.zero_grad == ZeroGrad::AfterStep {
            self.zero_grad();
        }
        if of.loss == LossLife::Deleted {
            drop(self.loss.take());
        }
        if of.empty_cache == EmptyCache::Step {
            t.empty_cache();
        }
        if of.evaluate_every == 0 {
            t.mark("step");
        } else if step.is_multiple_of(of.evaluate_every) {
            self.evaluate(t);
        }
        if of.empty_cache == EmptyCache::FirstStep && step == 1 {
            t.empty_cache();
        }
    }

    fn zero_grad(&self) {
        if let Some(optimizer) = &self.optimizer {
            optimizer.zero_grad();
        }
    }

    fn forward(&mut self, t: &Torch, seq: u64) {
        let of = self.of;
        let ids = t.input(&[of.batch, seq], DType::I64);
        let autocast = of.autocast.dtype();
        let mut loss = if of.keep_logits {
            drop(self.ids.replace(ids.clone()));
            self.model.loss(t, &ids, autocast, true, &mut self.logits)
        } else {
            let mut logits = None;
            self.model.loss(t, &ids, autocast, true, &mut logits)
        };
        drop(ids);
        if of.accumulate > 0 {
            loss = t.scale(&loss);
        }
        drop(self.loss.replace(loss));
    }

    fn backward(&mut self, t: &Torch) {
        let Some(loss) = &self.loss else { return };
        match &mut self.scaler {
            Some(scaler) => {
                let scaled = scaler.scale(t, loss);
                t.backward(&scaled);
            }
            None => t.backward(loss),
        }
        if self.of.loss == LossLife::Temporary {
            drop(self.loss.take());
        }
    }

    fn optimize(&mut self, t: &Torch) {
        let Some(optimizer) = self.optimizer.as_deref_mut() else {
            // The gradients go to the host, one after the other, and the weights come back.
            for parameter in self.model.parameters() {
                drop(parameter.take_grad());
            }
            return;
        };
        match &mut self.scaler {
            Some(scaler) => scaler.step(t, optimizer),
            None => optimizer.step(t),
        }
    }

    /// `total += loss`.
    fn add_up(&mut self, t: &Torch) {
        let loss = match (self.of.sum_loss, &self.loss) {
            (SumLoss::Tensor, Some(loss)) => loss.clone(),
            (SumLoss::Detach, Some(loss)) => loss.detach(),
            _ => return,
        };
        self.total = Some(match self.total.take() {
            None => t.scale(&loss), // 0 + loss
            Some(total) => t.add_into(total, &loss),
        });
    }

    fn evaluate(&mut self, t: &Torch) {
        let of = self.of;
        drop(self.loss.take());
        self.zero_grad();
        t.mark("train");
        if of.evaluate_batches == 0 {
            return;
        }
        for _ in 0..of.evaluate_batches {
            if t.check().is_err() {
                return;
            }
            let one = || {
                let ids = t.input(&[of.evaluate_batch, of.evaluate_seq], DType::I64);
                let mut logits = None;
                let loss = self.model.loss(t, &ids, of.autocast.dtype(), false, &mut logits);
                drop(logits);
                drop(ids);
                drop(loss);
            };
            if of.evaluate_grad { one() } else { t.no_grad(one) }
        }
        t.mark("evaluation");
        if of.empty_cache == EmptyCache::Evaluation {
            t.empty_cache();
        }
    }
}
