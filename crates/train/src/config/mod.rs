//! The configuration: every option once, with its default, its help text and its checks.
//!
//! [`Options`] is what a user says (a TOML file, the command line, or both), [`Config`] what a run does. The two
//! structs come from one table, so that a key cannot exist in one and be forgotten in the other. Names are TRL's.
//! An option that would have no effect is an error: nothing a user asks for is silently ignored.

mod check;
mod difference;
mod file;
mod range;
mod table;
#[cfg(test)]
mod tests;
mod unsupported;
mod values;

pub use difference::Difference;
pub use table::{Config, KEYS, Key, Options};
pub use unsupported::check_supported;
pub use values::{
    BaseDtype, Device, DivergenceType, Form, IpoReduction, KlEstimator, Losses, Maybe, Method, Numbers,
    Optim, ReportTo, Resume, SaveDtype, SaveStrategy, ScaleRewards, Scheduler, TruncationMode,
};
