#![doc = include_str!("../README.md")]

mod bootstrap;
mod bradley_terry;
mod connected;
mod estimate;
mod kendall;
mod reliability;
mod samples;
mod slope;
mod tail;
mod wins;

pub use bootstrap::{Bootstrap, REPLICATES, Share, interval};
pub use bradley_terry::{BradleyTerry, Misfit, NoFit};
pub use connected::connected;
pub use estimate::{Estimate, Z, mean, wilson};
pub use kendall::kendall;
pub use reliability::{BINS, Bin, Reliability};
pub use samples::{best_of_n, best_of_n_classes, effective_size, kl};
pub use slope::{Slope, slope};
pub use tail::chi_square_tail;
pub use wins::{Contests, Wins};
