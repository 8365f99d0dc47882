//! PyTorch's CUDA caching allocator.
pub mod conf;
pub mod rounding;
