//! What is kept for backward, and activation checkpointing, which keeps it by making it again.
//!
//! `torch/utils/checkpoint.py` (2.11), `use_reentrant=False`: the forward records its graph but keeps
//! none of the tensors; the first one that backward asks for runs the forward again, up to the last
//! tensor that is needed (`early_stop`), and keeps what that run saves.

use std::{cell::RefCell, fmt, rc::Rc};

use super::{
    Torch,
    autocast::Autocast,
    tensor::{Tensor, drop_list},
};
use crate::workload::Label;

/// A tensor that a node keeps for its backward.
#[derive(Debug)]
pub enum Saved {
    /// Nothing is kept: no graph is recorded, or the input is not needed.
    Nothing,
    /// The tensor itself.
    Tensor(Tensor),
    /// The n-th tensor that a checkpointed forward saved.
    Again(Rc<Frame>, usize),
}

impl Saved {
    /// The tensor, made again if need be. It goes when the node that asked is done.
    pub fn unpack(self, torch: &Torch) -> Option<Tensor> {
        let (tensor, kept) = match self {
            Self::Nothing => return None,
            Self::Tensor(tensor) => (tensor, &torch.0.unpacked),
            Self::Again(frame, i) => {
                let tensor = frame.get(torch, i)?;
                torch.0.frames.borrow_mut().done.push(frame);
                (tensor, &torch.0.made_again)
            }
        };
        kept.borrow_mut().push(tensor.clone());
        Some(tensor)
    }
}

type Forward = Rc<dyn Fn(&Torch, &[Tensor]) -> Tensor>;

/// One checkpointed piece of a forward.
pub struct Frame {
    forward: Forward,
    inputs: RefCell<Vec<Tensor>>,
    autocast: Option<super::DType>,
    /// How many tensors the first run saved.
    saved: RefCell<usize>,
    /// What the second run saved; `None` before it.
    again: RefCell<Option<Vec<Option<Tensor>>>>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("saved", &self.saved).finish_non_exhaustive()
    }
}

impl Frame {
    fn get(self: &Rc<Self>, torch: &Torch, i: usize) -> Option<Tensor> {
        if self.again.borrow().is_none() {
            self.run_again(torch);
        }
        self.again.borrow_mut().as_mut()?.get_mut(i)?.take()
    }

    fn run_again(self: &Rc<Self>, torch: &Torch) {
        *self.again.borrow_mut() = Some(Vec::new());
        let inputs = self.inputs.borrow().clone();
        torch.0.frames.borrow_mut().open.push(Open { frame: Rc::clone(self), again: true });
        let before = torch.0.autocast.replace(Autocast::of(self.autocast));
        let out = torch.enable_grad(|| (self.forward)(torch, &inputs));
        drop(out);
        drop(torch.0.autocast.replace(before));
        let mut frames = torch.0.frames.borrow_mut();
        frames.open.pop();
        frames.stopped = false;
    }
}

/// The pieces that run now, innermost last.
#[derive(Debug, Default)]
pub(super) struct Frames {
    open: Vec<Open>,
    /// The second run has saved all that is needed: what follows it is not run.
    stopped: bool,
    /// Pieces that the running node asked: they, and with them their inputs, stay until it is done.
    done: Vec<Rc<Frame>>,
}

#[derive(Debug)]
struct Open {
    frame: Rc<Frame>,
    again: bool,
}

impl Frames {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }
}

impl Torch {
    /// The end of a node's own code: tensors that were made again were its variables. What it had
    /// saved itself stays until its incoming gradients are gone.
    pub(super) fn let_go_of_made_again(&self) {
        drop_list(self.0.made_again.take());
    }

    /// The end of a node: it lets go of the pieces that it asked.
    pub(super) fn let_go_of_pieces(&self) {
        let done = std::mem::take(&mut self.0.frames.borrow_mut().done);
        drop(done);
    }

    pub(super) fn save(&self, tensor: &Tensor) -> Saved {
        let mut frames = self.0.frames.borrow_mut();
        let frames = &mut *frames;
        let Some(open) = frames.open.last() else {
            let kept = tensor.detach();
            if let Some(place) = kept.storage.place
                && self.label_of(place) == Label::Temporary
            {
                self.set_label(place, Label::Activation);
            }
            return Saved::Tensor(kept);
        };
        let frame = Rc::clone(&open.frame);
        if !open.again {
            let mut saved = frame.saved.borrow_mut();
            *saved += 1;
            return Saved::Again(Rc::clone(&frame), *saved - 1);
        }
        if !frames.stopped
            && let Some(again) = frame.again.borrow_mut().as_mut()
        {
            again.push(Some(tensor.detach()));
            frames.stopped = again.len() >= *frame.saved.borrow();
        }
        Saved::Nothing
    }

    /// `torch.utils.checkpoint.checkpoint(forward, inputs, use_reentrant=False)`.
    pub fn checkpoint(
        &self,
        inputs: &[Tensor],
        forward: impl Fn(&Torch, &[Tensor]) -> Tensor + 'static,
    ) -> Tensor {
        if !self.0.grad_enabled.get() {
            return forward(self, inputs);
        }
        let frame = Rc::new(Frame {
            forward: Rc::new(forward),
            inputs: RefCell::new(inputs.to_vec()),
            autocast: self.0.autocast.borrow().dtype(),
            saved: RefCell::new(0),
            again: RefCell::new(None),
        });
        self.0.frames.borrow_mut().open.push(Open { frame: Rc::clone(&frame), again: false });
        let out = (frame.forward)(self, inputs);
        self.0.frames.borrow_mut().open.pop();
        out
    }
}
