#![doc = include_str!("../README.md")]

pub mod base;
pub mod models;
pub mod observe;
pub mod sim;
pub mod source;
pub mod trace;
