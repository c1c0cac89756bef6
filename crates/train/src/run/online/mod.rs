//! Learning from what the policy draws in each step, as a judge says.

mod learner;
mod lesson;
mod pairs;
mod policy;
mod prompts;
mod report;
mod setup;
mod world;

pub use setup::{Prepared, prepare, train_online};
