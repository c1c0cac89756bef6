#![doc = include_str!("../README.md")]

mod arch;
mod error;
mod export;
mod file;
mod kind;
mod layout;
mod pre;
mod rope;
mod vocabulary;

pub use error::{Error, Result};
pub use export::{Exported, export};
pub use kind::Outtype;

#[cfg(test)]
mod tests;
