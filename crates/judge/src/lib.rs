#![doc = include_str!("../README.md")]

mod case;
mod error;
#[cfg(feature = "http")]
mod http;
mod judge;
mod lexicon;
mod name;
mod normalization;
mod opinion;
mod program;
mod settings;
mod verdict;

pub use case::{Answer, Case, Pair, Prompt, Turn};
pub use error::{Error, Result, Stop};
#[cfg(feature = "http")]
pub use http::{Http, Reviser, Revision};
pub use judge::{Judge, Says, Tally, compare_by_scoring, scores_by_comparing};
pub use lexicon::Lexicon;
pub use name::{Maker, built_in, open};
pub use normalization::Normalization;
pub use opinion::{Opinion, logit, preference, sigmoid, win_rates};
pub use program::Program;
pub use settings::{KEYS, Key, Scale, Settings};
pub use verdict::{Verdict, verdicts};
