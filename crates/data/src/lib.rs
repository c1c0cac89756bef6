#![doc = include_str!("../README.md")]

mod asked;
mod batch;
mod builder;
mod candidates;
mod contain;
mod dataset;
mod encode;
mod error;
mod labels;
mod load;
mod message;
mod mismatch;
mod options;
mod prompt;
mod read;
mod report;
mod row;
mod said;
mod stored;
mod template;
mod tokenizer;

pub use asked::{Answered, Asked, Drawn};
pub use batch::{Batch, BatchGroup, Segment, order, pack};
pub use builder::Builder;
pub use candidates::{Candidate, Candidates};
pub use dataset::{Dataset, Group};
pub use error::{Error, Result};
pub use labels::{Label, Labels};
pub use load::Loading;
pub use message::Message;
pub use options::{Options, Task, Truncation, Whole};
pub use prompt::{Prompt, Prompts};
pub use report::Report;
pub use row::Row;
pub use template::{Context, Rendered};
pub use tokenizer::Tokenizer;
