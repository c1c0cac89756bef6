//! `duel train`: a run as the options say, or the built-in experiment where nothing is said.

use crate::judges::{self, JudgeSettings};
use clap::Args;
use duel::arguments::RunOptions;
use duel::device::{Chosen, Job};
use duel_backend::Backend;
use duel_experiments::sentiment::{self, Finding};
use duel_judge::open;
use duel_train::config::{Config, Device, Method, Options, Resume};
use duel_train::{Error, Outcome, signal, train, train_online};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::{env, fs};

/// Its arguments.
#[derive(Args)]
pub struct Train {
    /// TOML file with any of the keys below, or a YAML recipe of TRL, LLaMA-Factory or axolotl; the command line wins
    config: Option<PathBuf>,
    #[command(flatten)]
    options: RunOptions,
    #[command(flatten)]
    judging: JudgeSettings,
}

struct Experiment(Method);

impl Job for Experiment {
    type Output = Option<Finding>;
    fn run<B: Backend>(self, b: &B) -> Result<Option<Finding>, Error> {
        sentiment::run(b, Path::new("runs/sentiment"), 42, self.0)
    }
}

struct Training<'a>(&'a Config);

impl Job for Training<'_> {
    type Output = Outcome;
    fn run<B: Backend>(self, b: &B) -> Result<Outcome, Error> {
        let Some(name) = &self.0.judge else { return train(b, self.0) };
        let settings = judges::kept(&self.0.judging, name, || answers(self.0))?;
        let mut judge = open(name, &settings, &judges::makers(b), &judges::stop())?;
        train_online(b, self.0, &mut *judge)
    }
}

/// The file of an endpoint's answers, in the folder of the run. A run that goes on in another folder takes along those
/// that it goes on with.
fn answers(config: &Config) -> Result<PathBuf, Error> {
    const NAME: &str = "judge-answers.jsonl";
    let own = config.output_dir.join(NAME);
    let before = match &config.resume_from_checkpoint {
        Resume::Path(checkpoint) => checkpoint.parent().map(|folder| folder.join(NAME)),
        Resume::Off | Resume::Newest => None,
    };
    if let Some(before) = before.filter(|before| before.exists() && !own.exists()) {
        let failed =
            |e| Error::new(format!("{}: cannot be copied to {}: {e}", before.display(), own.display()));
        fs::create_dir_all(&config.output_dir).and_then(|()| fs::copy(&before, &own)).map_err(failed)?;
    }
    Ok(own)
}

/// Starts this command again where a recipe asks for another environment than there is: what has been read of it, by
/// libraries too, is then as the recipe says.
fn start_with(variables: &BTreeMap<String, String>) -> Result<(), Error> {
    let wrong = |name: &str, e: &dyn Display| Error::new(format!("`env`: {name} cannot be set: {e}"));
    if let Some((name, _)) = variables
        .iter()
        .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        return Err(wrong(name, &"it is no name of a variable"));
    }
    if variables.iter().all(|(name, value)| env::var_os(name).is_some_and(|there| there == **value)) {
        return Ok(());
    }
    let names = variables.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let program = env::current_exe().map_err(|e| wrong(&names, &e))?;
    Err(wrong(&names, &process::Command::new(program).args(env::args_os().skip(1)).envs(variables).exec()))
}

/// Whether nothing is said but how to learn and where to work.
fn is_experiment(options: &Options) -> bool {
    let machine = Options {
        method: options.method,
        device: options.device,
        bf16: options.bf16.clone(),
        threads: options.threads,
        ..Options::default()
    };
    *options == machine
}

impl Train {
    /// Trains; the exit code says whether the run is over.
    pub fn run(self) -> Result<ExitCode, Error> {
        signal::listen();
        let options = Options { judging: self.judging.0, ..self.options.0 };
        if self.config.is_none() && is_experiment(&options) {
            let Options { method, device, bf16, threads, .. } = options;
            let (device, bf16) = (device.unwrap_or(Device::Auto), bf16.and_then(|said| said.0));
            return Chosen::of(device, bf16, threads.unwrap_or(0))?
                .run(Experiment(method.unwrap_or(Method::Dpo)))
                .map(|_| ExitCode::SUCCESS);
        }
        let file = self.config.as_deref().map(Options::read).transpose()?.unwrap_or_default();
        start_with(&file.recipe.env)?;
        // A mistake that only all of it together makes is the recipe's, as those are that a line makes.
        let recipe = self.config.as_deref().filter(|_| file.recipe.dialect.is_some());
        let named = |e: Error| match recipe {
            Some(path) => Error::new(format!("{}: {e}", path.display())),
            None => e,
        };
        let options = options.or(file).settle().map_err(named)?;
        options.recipe.notes().iter().for_each(|note| eprintln!("note: left out: {note}"));
        let mut config = options.resolve().map_err(named)?.pinned()?;
        let chosen = Chosen::of(config.device, config.bf16, config.threads)?;
        // What the run's folder says: the device that it is, not how it was found.
        (config.device, config.threads) = match chosen {
            Chosen::Cpu { threads, .. } => (Device::Cpu, threads),
            Chosen::Gpu { number, .. } => (Device::Cuda(number), 0),
        };
        let outcome = chosen.run(Training(&config))?;
        match outcome {
            Outcome::Done { seconds, .. } => {
                eprintln!(
                    "done in {seconds:.1} s; the model, metrics.jsonl and metrics.svg are in {}",
                    config.output_dir.display()
                );
                Ok(ExitCode::SUCCESS)
            }
            Outcome::Interrupted { checkpoint } => {
                let program = std::env::args().next().unwrap_or_else(|| "duel".into());
                let written = config.output_dir.join("duel.toml");
                eprintln!(
                    "stopped; {} is saved. To continue:\n  {program} train '{}' --resume-from-checkpoint",
                    checkpoint.display(),
                    written.display()
                );
                Ok(ExitCode::from(130))
            }
        }
    }
}
