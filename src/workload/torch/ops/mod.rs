//! The operators: what each allocates forward, keeps, and allocates backward.
//!
//! Every operator saves its inputs, then allocates its result, then saves that, as PyTorch's generated
//! code does; gradients are made in the order of the inputs' names there.

mod attention;
mod attention_split;
pub(super) mod conv;
#[cfg(test)]
mod conv_tests;
mod elementwise;
mod embedding;
mod grouped_attention;
mod index;
mod inplace;
mod linear;
mod loss;
mod masked_attention;
mod norm;
mod norm2d;
mod pool;
mod power;
mod quantised;
mod shape;

pub use quantised::Int4Weight;
