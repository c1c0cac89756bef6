//! `duel cycle`: the built-in world whose preferences have no order.

use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_experiments::tournament::intransitive::Intransitive;
use duel_train::{Error, signal};
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct CycleWorld {
    /// Folder of everything; what is there of the same is gone on with
    #[arg(long, default_value = "runs/cycle")]
    output_dir: PathBuf,
    /// The first seed
    #[arg(long, default_value_t = 42, value_parser = clap::value_parser!(u64).range(..1 << 62))]
    seed: u64,
    /// Seeds, each a world of its own [default: 3; with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,
    /// A quarter of the steps
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    machine: Machine,
}

impl Job for &CycleWorld {
    type Output = String;
    fn run<B: Backend>(self, b: &B) -> Result<String, Error> {
        let CycleWorld { output_dir, seed, quick, .. } = self;
        let seeds = self.seeds.unwrap_or(if *quick { 1 } else { 3 });
        Intransitive { dir: output_dir.clone(), seed: *seed, seeds, quick: *quick }.run(b)
    }
}

impl CycleWorld {
    /// Runs it, and prints what came of it.
    ///
    /// # Errors
    /// The folder cannot be written, or Ctrl-C.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let Machine { device, bf16, threads } = &self.machine;
        let text = Chosen::of(*device, bf16.0, (*threads).into())?.run(self)?;
        println!("\n{text}\ncycle.md, its pictures and numbers are in {}", self.output_dir.display());
        Ok(())
    }
}
