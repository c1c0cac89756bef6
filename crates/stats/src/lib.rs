#![doc = include_str!("../README.md")]

mod bootstrap;
mod estimate;
mod kendall;
mod reliability;
mod samples;

pub use bootstrap::{Bootstrap, REPLICATES, Share};
pub use estimate::{Estimate, Z, mean, wilson};
pub use kendall::kendall;
pub use reliability::{BINS, Bin, Reliability};
pub use samples::{best_of_n, effective_size};
