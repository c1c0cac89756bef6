//! Heads on the hidden states of a packed batch: statistics of rows out, a coefficient a row in.
//!
//! A head adds to the gradient of the hidden states, which the caller zeroes: heads compose.

mod gathered;
mod lm;
mod pairs;
mod row;
mod scalar;
mod targets;

pub use lm::{Compared, Head};
pub use pairs::Known;
pub use row::{ResponseStats, Row};
pub use scalar::ScalarHead;
pub use targets::Targets;
