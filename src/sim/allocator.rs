//! [`Allocator`]: what replay asks of a model.

use super::{Device, Observer};
use crate::{
    base::{Addr, AllocId, StreamId},
    trace::{AllocOp, Control, FreeOp, Layout, Oom, Op, Trace},
};

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// Out of memory: `torch.OutOfMemoryError`.
    #[error("{0}")]
    Oom(Box<Oom>),
    /// Refused before anything was tried; `torch.OutOfMemoryError` with this text.
    #[error("{0}")]
    Refused(String),
    /// Another error of the real allocator, with its text; an internal assertion is named as the
    /// real one names it, without the place in its source.
    #[error("{0}")]
    Failed(String),
}

impl AllocError {
    /// Whether PyTorch throws this as an out-of-memory error.
    pub fn is_oom(&self) -> bool {
        matches!(self, Self::Oom(_) | Self::Refused(_))
    }
}

/// A model of an allocator on one device.
///
/// The ids are a trace's: an id is asked for at most once before [`Allocator::reset`].
pub trait Allocator {
    /// Makes the state that the trace starts from. Called once, before anything else.
    fn start<O: Observer>(&mut self, trace: &Trace, observer: &mut O);

    /// Serves a request; `None` for one of size 0.
    ///
    /// # Errors
    /// When it cannot be served.
    fn malloc<O: Observer>(
        &mut self,
        op: &AllocOp,
        observer: &mut O,
    ) -> Result<Option<Addr>, AllocError>;

    /// Takes a block back. An id that was not served is passed over.
    fn free<O: Observer>(&mut self, op: &FreeOp, observer: &mut O);

    /// The event that a pending free waited for is done.
    fn complete(&mut self, id: AllocId);

    /// The block is also used on `stream`.
    fn record_stream(&mut self, id: AllocId, stream: StreamId);

    /// Gives cached memory back to the device.
    ///
    /// # Errors
    /// When the real one fails an assertion.
    fn empty_cache<O: Observer>(&mut self, observer: &mut O) -> Result<(), AllocError>;

    /// A rare operation.
    ///
    /// # Errors
    /// As the real one.
    fn control<O: Observer>(
        &mut self,
        control: &Control,
        observer: &mut O,
    ) -> Result<(), AllocError>;

    /// Whether [`Allocator::look_ahead`] is worth its while now.
    fn looks_ahead(&self) -> bool {
        false
    }

    /// What these operations need, of which the first comes next, may be brought near. Changes
    /// nothing.
    fn look_ahead(&self, _coming: &[Op]) {}

    /// Where everything lies. May be slow.
    fn layout(&self) -> Layout;

    /// The device under it.
    fn device(&self) -> &Device;

    /// The device under it, to change.
    fn device_mut(&mut self) -> &mut Device;

    /// As new, with its memory kept.
    fn reset(&mut self);
}
