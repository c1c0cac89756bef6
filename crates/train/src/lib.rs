#![doc = include_str!("../README.md")]

pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod engine;
mod error;
pub mod metrics;
pub mod objective;
pub mod plot;
pub mod progress;
pub mod reference;
mod run;
pub mod sample;
pub mod signal;

pub use error::Error;
pub use run::{Outcome, train};
