#![doc = include_str!("../README.md")]

#[macro_use]
mod say;

pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod content;
pub mod critic;
pub mod engine;
mod error;
mod follow;
mod look;
pub mod memory;
pub mod objective;
mod ranks;
pub mod reference;
pub mod replay;
pub mod report;
pub mod reward;
mod run;
pub mod sample;
pub mod signal;
mod stays;
mod tokenizer;
mod tokens;

pub use error::Error;
pub use look::Look;
pub use ranks::{Cut, Ranks, Updater};
pub use run::{
    Forecast, Outcome, Time, Tokens, at_revision, check_tokens, files, folder, forecast, max_length, rows,
    split, train, train_online,
};
pub use say::{hush, tell};
pub use tokenizer::tokenizer;
