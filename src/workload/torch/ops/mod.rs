//! The operators: what each allocates forward, keeps, and allocates backward.
//!
//! Every operator saves its inputs, then allocates its result, then saves that, as PyTorch's generated
//! code does; gradients are made in the order of the inputs' names there.

mod attention;
mod attention_split;
mod elementwise;
mod embedding;
mod linear;
mod loss;
mod norm;
mod shape;
