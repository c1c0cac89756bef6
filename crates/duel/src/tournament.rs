//! `duel tournament`: policies against each other, by what a judge says of their samples.

use crate::drawing::Drawing;
use crate::judges::{self, JudgeSettings};
use crate::rows::Which;
use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_experiments::tournament::Tournament;
use duel_experiments::tournament::entrant::{self, Entrant};
use duel_model::decode::Sampling;
use duel_train::{Error, signal};
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Play {
    /// A policy: its folder or its name on the Hub, or NAME=FOLDER; two at least
    #[arg(long, required = true, value_name = "FOLDER")]
    policy: Vec<String>,
    /// File of prompts (.jsonl, .json, .csv, .tsv, .parquet), a folder or a name on the Hub, as duel sample reads them
    #[arg(long, value_name = "FILE")]
    dataset: PathBuf,
    #[command(flatten)]
    which: Which,
    /// Who judges: lexicon:FILE, program:COMMAND, http:URL, truth, model:FOLDER or cycle
    #[arg(long, value_name = "NAME")]
    judge: String,
    /// Folder of what is found; the same command goes on with it where it was stopped
    #[arg(long, default_value = "runs/tournament")]
    output_dir: PathBuf,
    /// Samples of each prompt and policy
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    num_generations: u32,
    /// Sampling temperature; 0: always the likeliest token
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Longest continuation in tokens
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    #[command(flatten)]
    drawing: Drawing,
    #[command(flatten)]
    settings: JudgeSettings,
    #[command(flatten)]
    machine: Machine,
}

struct Work<'a> {
    said: &'a Play,
    entrants: Vec<Entrant>,
    how: Sampling,
}

impl Job for Work<'_> {
    type Output = String;
    fn run<B: Backend>(self, b: &B) -> Result<String, Error> {
        let Work { said, entrants, how } = self;
        let mut judge = judges::of_study(b, &said.judge, &said.settings.0, &said.output_dir)?;
        let tournament = Tournament {
            entrants,
            dataset: said.which.files(&said.dataset)?,
            samples: said.num_generations as usize,
            how,
            load_in_8bit: said.drawing.load_in_8bit,
            output_dir: said.output_dir.clone(),
        };
        tournament.play(b, judge.as_mut())
    }
}

impl Play {
    /// Plays it, and prints who stands where.
    ///
    /// # Errors
    /// What the user must put right, what the judge came to grief over; or that it was stopped, and how to go on.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let how = self.drawing.sampling(
            self.temperature,
            self.max_new_tokens,
            ("--num-generations", self.num_generations),
        )?;
        let mut entrants =
            self.policy.iter().map(|said| Entrant::named(said)).collect::<Result<Vec<_>, _>>()?;
        entrant::check(&entrants)?;
        for entrant in &mut entrants {
            entrant.folder = duel_train::folder(&entrant.folder)?;
        }
        let Machine { device, bf16, threads } = &self.machine;
        let chosen = Chosen::of(*device, bf16.0, (*threads).into())?;
        let text = chosen.run(Work { said: self, entrants, how })?;
        println!(
            "\n{text}\nall of it is in {}; `duel sample --mixture {}` draws from the mixture",
            self.output_dir.display(),
            self.output_dir.join("tournament.json").display()
        );
        Ok(())
    }
}
