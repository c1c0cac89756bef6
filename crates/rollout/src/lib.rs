#![doc = include_str!("../README.md")]

mod case;
mod error;
mod sampler;

pub use case::{case, prompt};
pub use error::{Error, Result};
pub use sampler::{Asked, Rollout, Sample, Sampler, groups};
