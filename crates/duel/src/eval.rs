//! `duel eval`: a preference file under a policy or a reward model.

use crate::inspect::{Format, print};
use clap::Args;
use duel::arguments::ScoringOptions;
use duel::device::{Chosen, Job};
use duel_backend::Backend;
use duel_evaluate::{Answer, Question, evaluate};
use duel_train::config::{Device, Method, Options};
use duel_train::{Error, signal};
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Eval {
    /// Folder of the model, or its name on the Hub: a reward model gives rewards, a language model log-probabilities
    #[arg(long)]
    model: PathBuf,
    /// File of preference rows (.jsonl, .json, .csv, .tsv, .parquet), as duel train reads them; or a folder of such
    /// files, or a name on the Hub, of which dataset_test_split is taken
    #[arg(long)]
    dataset: PathBuf,
    /// Folder of the reference: a policy's rewards are beta times its log-ratios to it
    #[arg(long)]
    ref_model: Option<PathBuf>,
    /// Folder of another model, put to the same rows: differences are paired by prompt
    #[arg(long)]
    versus: Option<PathBuf>,
    /// dpo or reward: what the folder has to be. Without it, what it is
    #[arg(long)]
    method: Option<Method>,
    /// File for what is said of each row, a line of JSON; where it is there, its rows are not scored again
    #[arg(long)]
    output: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Seed of the bootstrap, which the intervals are from
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    options: ScoringOptions,
}

struct Asked(Question);

impl Job for Asked {
    type Output = Answer;
    fn run<B: Backend>(self, b: &B) -> Result<Answer, Error> {
        evaluate(b, &self.0)
    }
}

impl Eval {
    /// Scores, and prints what came of it.
    pub fn run(self) -> Result<(), Error> {
        signal::listen();
        let Options { device, bf16, threads, .. } = self.options.0.clone();
        let (device, bf16) = (device.unwrap_or(Device::Auto), bf16.and_then(|said| said.0));
        let question = Question {
            options: Options {
                model: Some(self.model),
                dataset: Some(self.dataset),
                method: self.method,
                ..self.options.0
            },
            reference: self.ref_model,
            versus: self.versus,
            output: self.output,
            seed: self.seed,
        };
        let answer = Chosen::of(device, bf16, threads.unwrap_or(0))?.run(Asked(question))?;
        match self.format {
            Format::Text => print(&answer.to_string()),
            Format::Json => print(&format!("{:#}\n", answer.json())),
        }
    }
}
