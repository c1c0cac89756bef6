#![doc = include_str!("../README.md")]

mod batch;
mod contain;
mod dataset;
mod encode;
mod error;
mod message;
mod read;
mod report;
mod row;
mod template;
mod tokenizer;

pub use batch::{Batch, BatchGroup, Segment, order, pack};
pub use dataset::{Builder, Dataset, Group, Loading, Options, Task, Truncation};
pub use error::{Error, Result};
pub use message::Message;
pub use report::Report;
pub use row::Row;
pub use template::{Context, Rendered};
pub use tokenizer::Tokenizer;
