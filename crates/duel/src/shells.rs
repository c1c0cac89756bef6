//! `duel completions` and `duel man`: what shells and their manuals know of the commands.

use crate::inspect::print;
use clap::{Args, Command};
use clap_complete::Shell;
use duel_train::Error;
use std::path::PathBuf;

/// The arguments of `duel completions`.
#[derive(Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints what the shell reads.
    ///
    /// # Errors
    /// Standard output takes nothing.
    pub fn run(&self, mut command: Command) -> Result<(), Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "duel", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}

/// The arguments of `duel man`.
#[derive(Args)]
pub struct Man {
    /// Folder for the pages: one of duel, and one of each command
    #[arg(long)]
    output_dir: PathBuf,
}

impl Man {
    /// Writes the pages.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn run(&self, command: Command) -> Result<(), Error> {
        let failed = |e| Error::new(format!("{}: cannot be written: {e}", self.output_dir.display()));
        duel_disk::create_dir_all(&self.output_dir).map_err(failed)?;
        clap_mangen::generate_to(command, &self.output_dir).map_err(failed)
    }
}
