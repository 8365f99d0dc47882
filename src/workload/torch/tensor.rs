//! [`Tensor`]: a size with an owner.

use std::{fmt, rc::Rc};

use super::{
    Torch,
    autograd::{History, Leaf},
    memory::Place,
};
use crate::workload::Label;

/// The type of the numbers in a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// `torch.float32`.
    F32,
    /// `torch.float16`.
    F16,
    /// `torch.bfloat16`.
    BF16,
    /// `torch.int64`.
    I64,
    /// `torch.int32`.
    I32,
    /// `torch.uint8` and `torch.int8`.
    U8,
    /// `torch.bool`.
    Bool,
}

impl DType {
    /// Bytes of a number.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 | Self::Bool => 1,
        }
    }

    /// Its name in PyTorch.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::U8 => "uint8",
            Self::Bool => "bool",
        }
    }

    /// Whether gradients can flow through it.
    pub const fn is_floating(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}

/// Memory with an owner: freed with the last tensor that looks at it.
pub(super) struct Storage {
    torch: Torch,
    /// `None`: on the host, empty, or made after something went wrong.
    pub(super) place: Option<Place>,
    /// `None` is the host.
    pub(super) device: Option<usize>,
}

impl Storage {
    pub(super) fn new(torch: &Torch, place: Option<Place>, device: Option<usize>) -> Rc<Self> {
        Rc::new(Self { torch: torch.clone(), place, device })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.torch.free(place);
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A tensor without numbers. A clone is another reference to the same memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// First: a tensor that goes lets go of its graph before its memory.
    pub(super) history: History,
    pub(super) storage: Rc<Storage>,
    pub(super) shape: Rc<[u64]>,
    pub(super) dtype: DType,
    /// Whether it is a view, which holds the tensor that it looks at.
    pub(super) view: bool,
}

impl Tensor {
    pub(super) fn of(storage: Rc<Storage>, shape: &[u64], dtype: DType) -> Self {
        Self { storage, shape: shape.into(), dtype, history: History::None, view: false }
    }

    /// Its sides.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Side `i`, from the end if negative; 1 if there is none.
    pub fn dim(&self, i: isize) -> u64 {
        let at =
            if i < 0 { self.shape.len().checked_add_signed(i) } else { usize::try_from(i).ok() };
        at.and_then(|at| self.shape.get(at)).copied().unwrap_or(1)
    }

    /// The type of its numbers.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many numbers it has; `u64::MAX` if they cannot be counted.
    pub fn numel(&self) -> u64 {
        self.shape.iter().fold(1, |n: u64, side| n.saturating_mul(*side))
    }

    /// Bytes of its numbers.
    pub fn nbytes(&self) -> u64 {
        self.numel().saturating_mul(self.dtype.bytes())
    }

    /// The device it lies on; `None` is the host.
    pub fn device(&self) -> Option<usize> {
        self.storage.device
    }

    /// Whether backward would come here.
    pub fn requires_grad(&self) -> bool {
        !matches!(self.history, History::None)
    }

    /// The same memory without its history (`detach`).
    #[must_use]
    pub fn detach(&self) -> Self {
        Self { history: History::None, ..self.clone() }
    }

    /// The same memory with other sides, without its history: for numbers that nobody
    /// differentiates. [`Torch::view`] keeps the history.
    #[must_use]
    pub fn shaped(&self, shape: &[u64]) -> Self {
        Self { shape: shape.into(), history: History::None, view: true, ..self.clone() }
    }

    /// Turns it into a leaf that collects a gradient (`requires_grad_()`).
    #[must_use]
    pub fn requires_grad_(self) -> Self {
        let leaf = Leaf { _variable: Some(Rc::clone(&self.storage)), ..Leaf::default() };
        Self { history: History::Leaf(Rc::new(leaf)), ..self }
    }

    /// The gradient that backward left at this leaf.
    pub fn grad(&self) -> Option<Tensor> {
        match &self.history {
            History::Leaf(leaf) => leaf.grad.borrow().clone(),
            _ => None,
        }
    }

    /// Takes the gradient away from this leaf, as `p.grad = None` does.
    pub fn take_grad(&self) -> Option<Tensor> {
        match &self.history {
            History::Leaf(leaf) => leaf.grad.borrow_mut().take(),
            _ => None,
        }
    }

    /// Gradients that arrive at this leaf go to the host at once
    /// (`register_post_accumulate_grad_hook`).
    pub fn send_gradients_away(&self) {
        if let History::Leaf(leaf) = &self.history {
            leaf.leaves.set(true);
        }
    }

    /// Sets the gradient of this leaf.
    pub fn set_grad(&self, grad: Tensor) {
        if let History::Leaf(leaf) = &self.history {
            *leaf.grad.borrow_mut() = Some(grad);
        }
    }

    /// Whether nobody else looks at its memory, so that an operator may write its result there.
    pub(super) fn is_only_reference(&self) -> bool {
        Rc::strong_count(&self.storage) == 1
    }

    /// Whether another gradient may be added in its memory: it is no view, and nobody else looks.
    pub(super) fn takes_sums(&self) -> bool {
        !self.view && self.is_only_reference()
    }

    /// Says what it is for.
    #[must_use]
    pub fn labelled(self, label: Label) -> Self {
        if let Some(place) = self.storage.place {
            self.storage.torch.set_label(place, label);
        }
        self
    }

    /// Work on `stream` uses it, too (`record_stream`).
    pub fn record_stream(&self, stream: super::StreamRef) {
        if let Some(place) = self.storage.place {
            self.storage.torch.record_stream(place, stream);
        }
    }
}

/// Lets go of a Python list of tensors: CPython drops the last item first.
pub fn drop_list<T>(mut list: Vec<T>) {
    while let Some(item) = list.pop() {
        drop(item);
    }
}
