#![doc = include_str!("../README.md")]

pub mod base;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "lessons")]
pub mod lesson;
pub mod models;
pub mod observe;
pub mod report;
pub mod sim;
pub mod source;
pub mod study;
pub mod trace;
pub mod workload;
