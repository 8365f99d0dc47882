//! `torch.autocast`: weights are cast once and kept until the region ends.

use std::rc::Rc;

use super::{
    Torch,
    autograd::{History, Leaf},
    tensor::{DType, Tensor},
};

/// The mode of the thread.
#[derive(Debug, Default)]
pub(super) struct Autocast {
    dtype: Option<DType>,
    /// Casts of weights, in the order in which they were made. The real cache is a hash table, and
    /// clears in its order.
    casts: Vec<(Rc<Leaf>, Tensor)>,
}

impl Autocast {
    pub(super) fn of(dtype: Option<DType>) -> Self {
        Self { dtype, casts: Vec::new() }
    }

    pub(super) fn dtype(&self) -> Option<DType> {
        self.dtype
    }
}

impl Torch {
    /// Runs `f` in autocast to `dtype`; `None` runs it as it is.
    pub fn autocast<R>(&self, dtype: Option<DType>, f: impl FnOnce() -> R) -> R {
        let Some(dtype) = dtype else { return f() };
        let outer = self.0.autocast.borrow().dtype;
        self.0.autocast.borrow_mut().dtype = Some(dtype);
        let result = f();
        self.0.autocast.borrow_mut().dtype = outer;
        if outer.is_none() {
            let casts = std::mem::take(&mut self.0.autocast.borrow_mut().casts);
            casts.into_iter().for_each(drop);
        }
        result
    }

    /// Runs `f` without autocast, whose casts stay: the inside of an operator that casts its inputs.
    pub(super) fn inside_operator<R>(&self, f: impl FnOnce() -> R) -> R {
        let outer = self.0.autocast.borrow_mut().dtype.take();
        let result = f();
        self.0.autocast.borrow_mut().dtype = outer;
        result
    }

    /// The type that matrix products are done in here.
    pub fn autocast_dtype(&self) -> Option<DType> {
        self.0.autocast.borrow().dtype
    }

    /// An input of a matrix product: cast to the type of autocast, weights through its cache.
    ///
    /// # Source
    /// `aten/src/ATen/autocast_mode.cpp`, `cached_cast`, 2.11.
    pub fn cast_input(&self, x: &Tensor) -> Tensor {
        let Some(dtype) = self.autocast_dtype() else { return x.clone() };
        if x.dtype == dtype || !x.dtype.is_floating() {
            return x.clone();
        }
        let History::Leaf(leaf) = &x.history else { return self.to(x, dtype) };
        if x.dtype != DType::F32 {
            return self.to(x, dtype);
        }
        let known = self
            .0
            .autocast
            .borrow()
            .casts
            .iter()
            .rev()
            .find_map(|(of, cast)| Rc::ptr_eq(of, leaf).then(|| cast.clone()));
        known.unwrap_or_else(|| {
            let cast = self.to(x, dtype);
            self.0.autocast.borrow_mut().casts.push((Rc::clone(leaf), cast.clone()));
            cast
        })
    }

    /// An input of an operator that autocast runs in float32, such as a softmax or a loss.
    pub fn cast_to_f32(&self, x: &Tensor) -> Tensor {
        match self.autocast_dtype() {
            Some(_) if x.dtype.is_floating() => self.to(x, DType::F32),
            _ => x.clone(),
        }
    }
}
