#![doc = include_str!("../README.md")]

mod answer;
pub mod audit;
mod compare;
mod judge;
mod lines;
mod question;
mod summary;
#[cfg(test)]
mod tests;
mod text;
mod versus;

pub use answer::Answer;
pub use compare::{By, Comparison, Pair, compare};
pub use lines::{Lines, Of, Record};
pub use question::{Question, evaluate};
pub use summary::{Figures, Gap, Summary};
pub use versus::Versus;
