#![doc = include_str!("../README.md")]

mod head;
mod objective;

pub use head::{Head, ResponseStats, Row, ScalarHead, Targets};
pub use objective::{
    Divergence, Group, Needs, Objective, PairLoss, Score, Settings, Totals, WORDS, Word, hinge, ipo, sigmoid,
    word,
};
