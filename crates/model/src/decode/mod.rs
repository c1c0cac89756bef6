//! Decoding: prompts continued, many sequences at a time over one cache of keys and values.
//!
//! A prompt goes through the packed pass once, whatever the number of its samples; what is kept of it are the keys and
//! values of all its tokens but the last. Each sample begins with that last token as a row of its own, like every token
//! after it, so that all rows of a decoding pass are alike: one token in, one drawn. The cache is rows for prompts,
//! given out where enough lie side by side, then a fixed number for each sequence's own tokens. Who ends makes room for
//! who waits, in the order of the requests.
//!
//! A dialogue is one sequence whose keys and values stay from one continuation to the next.

mod dialogue;
mod engine;
mod regions;
mod request;
mod room;
mod sampling;
mod schedule;

pub use dialogue::Dialogue;
pub use engine::Engine;
pub use request::{Completion, Drawn, Ended, FinishReason, Pace, Request};
pub use room::{Plan, Room};
pub use sampling::{Mixture, Sampling};
