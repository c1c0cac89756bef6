#![doc = include_str!("../README.md")]

mod device;
mod head;
mod objective;
pub mod policy;

pub use head::{Compared, Head, Known, ResponseStats, Row, ScalarHead, Targets};
pub use objective::{
    Divergence, Group, Needs, Objective, PairLoss, Score, Settings, Totals, WORDS, Word, logistic, sigmoid,
    softplus, word,
};
