//! `duel table`: the methods side by side in the built-in world.

use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_experiments::table;
use duel_train::{Error, signal};
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Table {
    /// Folder of the runs and of the table
    #[arg(long, default_value = "runs/table")]
    output_dir: PathBuf,
    /// Seed of all randomness
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    machine: Machine,
}

impl Job for &Table {
    type Output = ();
    fn run<B: Backend>(self, b: &B) -> Result<(), Error> {
        table::run(b, &self.output_dir, self.seed)
    }
}

impl Table {
    /// Runs them, and prints the table.
    ///
    /// # Errors
    /// The folder cannot be written, or Ctrl-C.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let Machine { device, bf16, threads } = &self.machine;
        Chosen::of(*device, bf16.0, (*threads).into())?.run(self)
    }
}
