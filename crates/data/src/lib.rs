#![doc = include_str!("../README.md")]

mod batch;
mod dataset;
mod encode;
mod error;
mod read;
mod report;
mod row;
mod template;
mod tokenizer;

pub use batch::{Batch, BatchGroup, Segment, order, pack};
pub use dataset::{Builder, Dataset, Group, Options, Task, Truncation};
pub use error::{Error, Result};
pub use report::Report;
pub use row::Row;
pub use template::Message;
pub use tokenizer::Tokenizer;
