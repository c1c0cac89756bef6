//! `duel audit`: what can be said of files of rows before anything is trained on them.

use crate::inspect::{Format, print};
use crate::run::RunArguments;
use clap::Args;
use duel_evaluate::audit;
use duel_train::{Error, signal};
use std::process::ExitCode;

/// Its arguments.
#[derive(Args)]
pub struct Audit {
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    said: RunArguments,
}

/// The exit code where something has to be put right.
const FOUND: u8 = 3;

impl Audit {
    /// Prints what was found; the exit code says whether something has to be put right.
    ///
    /// # Errors
    /// What the user must put right before anything can be said.
    pub fn run(&self) -> Result<ExitCode, Error> {
        signal::listen();
        let found = audit::audit(&self.said.config()?)?;
        match self.format {
            Format::Text => print(&found.to_string())?,
            Format::Json => print(&format!("{:#}\n", found.json()))?,
        }
        Ok(if found.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
    }
}
