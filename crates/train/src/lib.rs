//! The duel trainer: configuration, loop, checkpoints, metrics and the duel command

pub mod config;
pub mod grammar;
pub mod metrics;
pub mod plot;
pub mod progress;
