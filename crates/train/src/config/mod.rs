//! The configuration: every option once, with its default, its help text and its checks.
//!
//! [`Options`] is what a user says (a TOML file, a YAML recipe of another trainer, the command line, or several of
//! them), [`Config`] what a run does. The two structs come from one table, so that a key cannot exist in one and be
//! forgotten in the other. Names are TRL's; other names of other trainers are a second table, [`Word`].
//! An option that would have no effect is an error, or a note where a recipe has it: nothing a user asks for is
//! silently ignored.

mod check;
mod difference;
mod file;
mod foreign;
mod import;
mod mixture;
mod named;
mod range;
mod said;
mod schedule;
mod steps;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod yaml;

pub use difference::Difference;
pub use foreign::{Dialect, Meaning, Recipe, Word, notes_of_value, read_flag, word};
pub use import::import;
pub use mixture::{Called, Entry, Mixture};
pub use schedule::SchedulerSettings;
pub use steps::Steps;
pub use table::{Config, KEYS, Key, Options};
pub use values::{
    BaseDtype, Device, DivergenceType, EvalStrategy, Form, IpoReduction, KlEstimator, LoggingStrategy,
    Losses, Maybe, Method, Names, Numbers, Optim, ReportTo, Resume, SaveDtype, SaveStrategy, ScaleRewards,
    Scheduler, TruncationMode,
};
