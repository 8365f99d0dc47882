//! `torch.cuda.memory._snapshot()` pickles.
pub mod pickle;
pub mod raw;
