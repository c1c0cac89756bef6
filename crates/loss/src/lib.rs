#![doc = include_str!("../README.md")]

mod head;
mod objective;

pub use head::{Head, ResponseStats, Targets};
pub use objective::{
    Divergence, Needs, Objective, PairLoss, Score, Settings, Totals, WORDS, Word, hinge, ipo, sigmoid, word,
};
