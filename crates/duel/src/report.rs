//! `duel report`: what runs and studies left, on one page.

use clap::Args;
use duel_train::Error;
use duel_train::report::page;
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Report {
    /// Folders of runs, which are compared, and of studies
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page: one file that needs no network
    #[arg(long, default_value = "report.html")]
    output: PathBuf,
}

impl Report {
    /// Writes it.
    ///
    /// # Errors
    /// A folder holds neither a run nor a study, or the page cannot be written.
    pub fn run(&self) -> Result<(), Error> {
        page::write(&self.output, &self.runs)?;
        println!("{}", self.output.display());
        Ok(())
    }
}
