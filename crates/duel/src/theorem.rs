//! `duel theorem`: what the paper proves, on a language small enough to count.

use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_experiments::theorem::{self, Extent};
use duel_train::{Error, signal};
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Theorem {
    /// Folder of what is found; a command that was stopped goes on there
    #[arg(long, default_value = "runs/theorem")]
    output_dir: PathBuf,
    /// Seed of all randomness
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Less of everything: half a minute
    #[arg(long)]
    quick: bool,
    /// Transformers that are trained for each number of labels
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Steps of every training
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    #[command(flatten)]
    machine: Machine,
}

impl Job for &Theorem {
    type Output = ();
    fn run<B: Backend>(self, b: &B) -> Result<(), Error> {
        let mut extent = if self.quick { Extent::quick() } else { Extent::whole() };
        extent.seeds = self.seeds.unwrap_or(extent.seeds);
        (extent.steps, extent.long) = self.steps.map_or((extent.steps, extent.long), |steps| (steps, steps));
        theorem::run(b, &self.output_dir, self.seed, &extent)
    }
}

impl Theorem {
    /// Studies it, and prints what was found.
    ///
    /// # Errors
    /// The folder cannot be written or is of another study, or Ctrl-C.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let Machine { device, bf16, threads } = &self.machine;
        // Errors of bfloat16 would be larger than what is shown: it has to be asked for.
        Chosen::of(*device, bf16.0.or(Some(false)), (*threads).into())?.run(self)
    }
}
