//! A small eager PyTorch without numbers.
//!
//! ```
//! use fragsim::workload::torch::{DType, Torch, nn::Linear};
//!
//! let t = Torch::new(1);
//! let layer = Linear::new(&t, 1024, 4096, true, DType::F32);
//! let x = t.empty(&[8, 1024], DType::F32);
//! let y = t.linear(&x, &layer.weight, layer.bias.as_ref());
//! let loss = t.sum(&y);
//! t.backward(&loss);
//! assert_eq!(layer.weight.grad().unwrap().nbytes(), 1024 * 4096 * 4);
//! # drop((y, loss, x, layer));
//! let traces = t.finish()?;
//! # assert!(traces[0].ops().len() > 10);
//! # Ok::<(), fragsim::workload::WorkloadError>(())
//! ```
//! What an operator allocates, keeps for backward and allocates there is a fact of PyTorch 2.11 on
//! CUDA, seen in recordings; each operator names the recording or the source file.

mod autocast;
mod autograd;
mod checkpoint;
mod clock;
mod memory;
pub mod nn;
pub mod nn2d;
mod ops;
pub mod optim;
pub mod packed;
mod reduce;
pub mod scaler;
mod sort;
mod tensor;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

use self::{
    autocast::Autocast,
    checkpoint::Frames,
    memory::{Memory, Place},
    tensor::Storage,
};
pub use self::{
    clock::EventRef,
    ops::Int4Weight,
    ops::conv::{Cudnn, WeightOrder, Window},
    optim::Optimizer,
    tensor::{DType, Tensor, drop_list},
};
use crate::{
    base::StreamId,
    trace::{Control, Op, Trace},
    workload::{Label, WorkloadError},
};

/// A stream of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRef {
    device: usize,
    stream: StreamId,
}

/// The process that the program runs in: its devices, and the modes that PyTorch keeps for a thread.
/// A clone is another handle of the same one.
#[derive(Clone)]
pub struct Torch(Rc<State>);

struct State {
    memory: RefCell<Memory>,
    /// Ends of steps.
    marks: RefCell<Vec<Mark>>,
    device: Cell<usize>,
    /// The current stream of each device.
    streams: RefCell<Vec<StreamId>>,
    grad_enabled: Cell<bool>,
    /// What new tensors are for.
    label: Cell<Label>,
    /// Numbers the nodes of the graph: later ones run first.
    sequence: Cell<u64>,
    autocast: RefCell<Autocast>,
    frames: RefCell<Frames>,
    /// Saved tensors that the running node has unpacked: let go after its incoming gradients.
    unpacked: RefCell<Vec<Tensor>>,
    /// Those that a checkpoint made again: let go when its own code is done.
    made_again: RefCell<Vec<Tensor>>,
    /// Library workspaces made so far: (device, stream, which).
    workspaces: RefCell<Vec<(usize, StreamId, &'static str, Tensor)>>,
}

impl fmt::Debug for Torch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Torch").field("memory", &self.0.memory).finish_non_exhaustive()
    }
}

/// The end of a step or phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What ended.
    pub tag: String,
    /// Number of operations of each device until then.
    pub ops: Vec<usize>,
}

impl Torch {
    /// A process with so many devices.
    pub fn new(devices: u8) -> Self {
        let devices = devices.max(1);
        Self(Rc::new(State {
            memory: RefCell::new(Memory::new(devices)),
            marks: RefCell::default(),
            device: Cell::new(0),
            streams: RefCell::new(vec![StreamId(0); devices.into()]),
            grad_enabled: Cell::new(true),
            label: Cell::new(Label::Temporary),
            sequence: Cell::new(0),
            autocast: RefCell::default(),
            frames: RefCell::default(),
            unpacked: RefCell::default(),
            made_again: RefCell::default(),
            workspaces: RefCell::default(),
        }))
    }

    /// The first thing that went wrong, such as a tensor larger than any device. Nothing is added
    /// to the traces after it, so a program asks once a step.
    ///
    /// # Errors
    /// When something did.
    pub fn check(&self) -> Result<(), WorkloadError> {
        self.0.memory.borrow().failure().cloned().map_or(Ok(()), Err)
    }

    /// Ends a step or phase.
    pub fn mark(&self, tag: impl Into<String>) {
        let memory = self.0.memory.borrow();
        let ops = (0..memory.devices()).map(|device| memory.ops_of(device)).collect();
        self.0.marks.borrow_mut().push(Mark { tag: tag.into(), ops });
    }

    /// The ends of steps so far.
    pub fn marks(&self) -> Vec<Mark> {
        self.0.marks.borrow().clone()
    }

    /// What every device was asked, in order of the devices. The program is over: what is dropped
    /// later leaves no operation.
    ///
    /// # Errors
    /// As [`Torch::check`].
    pub fn finish(&self) -> Result<Vec<Trace>, WorkloadError> {
        let traces = self.0.memory.borrow_mut().take();
        // The caches hold tensors, which hold this.
        self.0.autocast.take();
        self.0.frames.take();
        self.0.unpacked.take();
        self.0.made_again.take();
        self.0.workspaces.take();
        traces
    }

    /// Number of devices.
    pub fn devices(&self) -> usize {
        self.0.memory.borrow().devices()
    }

    /// Memory for a tensor (`torch.empty`).
    pub fn empty(&self, shape: &[u64], dtype: DType) -> Tensor {
        self.empty_as(shape, dtype, self.0.label.get())
    }

    /// Memory for a tensor of this label.
    pub fn empty_as(&self, shape: &[u64], dtype: DType, label: Label) -> Tensor {
        let device = self.0.device.get();
        let stream = self.0.streams.borrow()[device];
        let muted = self.0.frames.borrow().is_stopped();
        let place = (!muted)
            .then(|| self.0.memory.borrow_mut().alloc(device, stream, shape, dtype, label))
            .flatten();
        Tensor::of(Storage::new(self, place, Some(device)), shape, dtype)
    }

    /// Memory of the shape and type of another tensor.
    pub fn empty_like(&self, other: &Tensor) -> Tensor {
        self.empty(&other.shape, other.dtype)
    }

    /// Memory of the shape of another tensor, of type `dtype`.
    pub fn empty_of(&self, other: &Tensor, dtype: DType) -> Tensor {
        self.empty(&other.shape, dtype)
    }

    /// Scratch memory of so many bytes.
    pub fn scratch(&self, bytes: u64) -> Tensor {
        self.empty_as(&[bytes], DType::U8, Label::Workspace)
    }

    /// Memory on the host, which costs nothing here.
    pub fn host(&self, shape: &[u64], dtype: DType) -> Tensor {
        Tensor::of(Storage::new(self, None, None), shape, dtype)
    }

    /// Data that arrives from the host (`.to(device)` of token ids, images).
    pub fn input(&self, shape: &[u64], dtype: DType) -> Tensor {
        self.empty_as(shape, dtype, Label::Input)
    }

    /// A weight: a leaf that collects a gradient.
    pub fn parameter(&self, shape: &[u64], dtype: DType) -> Tensor {
        self.empty_as(shape, dtype, Label::Parameter).requires_grad_()
    }

    /// Runs `f` with other values of the thread's modes.
    fn with<T: Copy, R>(cell: &Cell<T>, value: T, f: impl FnOnce() -> R) -> R {
        let before = cell.replace(value);
        let result = f();
        cell.set(before);
        result
    }

    /// Runs `f` without recording a graph (`torch.no_grad()`).
    pub fn no_grad<R>(&self, f: impl FnOnce() -> R) -> R {
        Self::with(&self.0.grad_enabled, false, f)
    }

    /// Runs `f` recording a graph (`torch.enable_grad()`).
    pub fn enable_grad<R>(&self, f: impl FnOnce() -> R) -> R {
        Self::with(&self.0.grad_enabled, true, f)
    }

    /// Whether a graph is recorded.
    pub fn is_grad_enabled(&self) -> bool {
        self.0.grad_enabled.get()
    }

    /// Runs `f`; tensors that it makes are for `label`.
    pub fn labelled<R>(&self, label: Label, f: impl FnOnce() -> R) -> R {
        Self::with(&self.0.label, label, f)
    }

    /// Runs `f` on another device (`torch.cuda.device`). Devices beyond the last are the last.
    pub fn on_device<R>(&self, device: usize, f: impl FnOnce() -> R) -> R {
        let last = self.0.memory.borrow().devices().saturating_sub(1);
        Self::with(&self.0.device, device.min(last), f)
    }

    /// Runs `f` on another stream (`torch.cuda.stream`).
    pub fn on_stream<R>(&self, stream: StreamRef, f: impl FnOnce() -> R) -> R {
        let set = |s| std::mem::replace(&mut self.0.streams.borrow_mut()[stream.device], s);
        let before = set(stream.stream);
        let result = self.on_device(stream.device, f);
        set(before);
        result
    }

    /// A new stream of the current device (`torch.cuda.Stream()`).
    pub fn new_stream(&self) -> StreamRef {
        let device = self.0.device.get();
        StreamRef { device, stream: self.0.memory.borrow_mut().new_stream(device) }
    }

    /// The current stream of the current device.
    pub fn current_stream(&self) -> StreamRef {
        let device = self.0.device.get();
        StreamRef { device, stream: self.0.streams.borrow()[device] }
    }

    /// `torch.cuda.empty_cache()`, which is for every device.
    pub fn empty_cache(&self) {
        let mut memory = self.0.memory.borrow_mut();
        for device in 0..memory.devices() {
            memory.push(device, Op::EmptyCache);
        }
    }

    /// A stream as traces know it, for controls.
    pub fn stream_id(&self, stream: StreamRef) -> StreamId {
        stream.stream
    }

    /// Something rarer, on the current device.
    pub fn control(&self, control: Control) {
        self.0.memory.borrow_mut().control(self.0.device.get(), control);
    }

    /// A library's workspace for the current stream: made at the first use, kept until the end.
    pub(super) fn workspace(&self, what: &'static str, bytes: u64) {
        let StreamRef { device, stream } = self.current_stream();
        let mut made = self.0.workspaces.borrow_mut();
        if !made.iter().any(|(d, s, w, _)| (*d, *s, *w) == (device, stream, what)) {
            let memory = self.scratch(bytes);
            made.push((device, stream, what, memory));
        }
    }

    fn free(&self, place: Place) {
        self.0.memory.borrow_mut().free(place);
    }

    fn record_stream(&self, place: Place, stream: StreamRef) {
        self.0.memory.borrow_mut().record_stream(place, stream.stream);
    }

    fn set_label(&self, place: Place, label: Label) {
        self.0.memory.borrow_mut().set_label(place, label);
    }

    fn label_of(&self, place: Place) -> Label {
        self.0.memory.borrow().label(place)
    }
}
