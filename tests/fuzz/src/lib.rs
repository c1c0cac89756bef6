#![doc = include_str!("../README.md")]

mod damage;
mod files;
mod kinds;
mod report;
mod source;
mod supervisor;
mod worker;

pub use files::{Files, read, write};
pub use kinds::{KINDS, Kind, PLANTED, find};
pub use source::Source;
pub use supervisor::{Plan, fuzz};
pub use worker::work;
