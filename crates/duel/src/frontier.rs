//! `duel frontier`: reward against KL, of every method.

use crate::judges::{self, JudgeSettings};
use clap::Args;
use duel::arguments::Seeds;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_experiments::frontier::{self, Ask, Given};
use duel_train::{Error, signal};
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Frontier {
    /// Folder of the study; the same command goes on with it where it was stopped
    #[arg(long, default_value = "runs/frontier")]
    output_dir: PathBuf,
    /// Fewer settings, shorter runs: about 6 minutes on two cores, where all take about 20 a seed
    #[arg(long)]
    quick: bool,
    /// Seed of labels, of what is measured, and of the built-in world
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Seeds of training, with commas: every run is made with each [default: 1,2,3; 1 with --quick]
    #[arg(long)]
    seeds: Option<Seeds>,
    /// Folder of a model, or its name on the Hub, instead of the built-in world
    #[arg(long, requires_all = ["dataset", "eval_dataset", "judge"])]
    model: Option<PathBuf>,
    /// File of prompts that are learned from
    #[arg(long, requires = "model")]
    dataset: Option<PathBuf>,
    /// File of prompts that are measured on
    #[arg(long, requires = "model")]
    eval_dataset: Option<PathBuf>,
    /// Who says what samples are worth: lexicon:FILE, program:COMMAND, http:URL, truth or model:FOLDER; labels are
    /// drawn by the sigmoid of differences of its scores
    #[arg(long, requires = "model")]
    judge: Option<String>,
    /// Longest sample in tokens [default: 64]
    #[arg(long, requires = "model", value_parser = clap::value_parser!(u32).range(1..))]
    max_completion_length: Option<u32>,
    /// Factor to learning rates, which suit a model of a million parameters; a large one wants far less
    #[arg(long, requires = "model", default_value_t = 1.0)]
    learning_rate_factor: f64,
    #[command(flatten)]
    judging: JudgeSettings,
    #[command(flatten)]
    machine: Machine,
}

impl Job for &Frontier {
    type Output = ();
    fn run<B: Backend>(self, b: &B) -> Result<(), Error> {
        let seeds = match &self.seeds {
            Some(Seeds(said)) => said.clone(),
            None if self.quick => vec![1],
            None => vec![1, 2, 3],
        };
        let (dir, rate) = (self.output_dir.clone(), self.learning_rate_factor);
        let ask = Ask { dir, seed: self.seed, seeds, quick: self.quick, rate };
        let given = (&self.model, &self.dataset, &self.eval_dataset, &self.judge);
        let (Some(model), Some(dataset), Some(eval_dataset), Some(name)) = given else {
            return frontier::built_in(b, &ask);
        };
        let mut judge = judges::of_study(b, name, &self.judging.0, &self.output_dir)?;
        let given = Given {
            model: duel_train::folder(model)?,
            dataset: dataset.clone(),
            eval_dataset: eval_dataset.clone(),
            new_tokens: self.max_completion_length.unwrap_or(64) as usize,
            name: name.clone(),
            judge: &mut *judge,
        };
        frontier::of(b, &ask, given)
    }
}

impl Frontier {
    /// Makes the study, or what is left of it.
    ///
    /// # Errors
    /// What the user must put right; or that it was stopped, and goes on with the same command.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        if !(self.learning_rate_factor > 0.0 && self.learning_rate_factor.is_finite()) {
            return Err(Error::new("--learning-rate-factor is no number above 0; leave it out, or give one"));
        }
        if let Some((name, _)) = self.judging.0.said().next().filter(|_| self.judge.is_none()) {
            return Err(Error::new(format!(
                "--{} has no effect without --judge; leave it out",
                name.replace('_', "-")
            )));
        }
        let Machine { device, bf16, threads } = &self.machine;
        Chosen::of(*device, bf16.0, (*threads).into())?.run(self)
    }
}
