#![doc = include_str!("../README.md")]

mod head;
mod objective;

pub use head::{Head, ResponseStats, Targets};
pub use objective::{PairLoss, Preference, Score, hinge, ipo, sigmoid};
