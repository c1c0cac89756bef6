//! `duel train`: a run as the options say, or the built-in experiment where nothing is said.

use crate::judges;
use crate::run::RunArguments;
use clap::Args;
use duel::device::{Chosen, Job};
use duel::launch;
use duel_backend::Backend;
use duel_comm::{Comm, Launch};
use duel_experiments::sentiment::{self, Finding};
use duel_judge::open;
use duel_train::config::{Config, Device, Method, Options, Resume};
use duel_train::{Error, Outcome, hush, signal, tell, train, train_online};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Its arguments.
#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    said: RunArguments,
}

struct Experiment(Method);

impl Job for Experiment {
    type Output = Option<Finding>;
    fn run<B: Backend>(self, b: &B) -> Result<Option<Finding>, Error> {
        sentiment::run(b, Path::new("runs/sentiment"), 42, self.0)
    }
}

struct Training<'a>(&'a Config, &'a dyn Comm);

impl Job for Training<'_> {
    type Output = Outcome;
    fn run<B: Backend>(self, b: &B) -> Result<Outcome, Error> {
        let Training(config, comm) = self;
        let Some(name) = &config.judge else { return train(b, comm, config) };
        let settings = judges::kept(&config.judging, name, || answers(config))?;
        let mut judge = open(name, &settings, &judges::makers(b), &judges::stop())?;
        train_online(b, comm, config, &mut *judge)
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
        let made = duel_disk::create_dir_all(&config.output_dir);
        made.and_then(|()| duel_disk::copy(&before, &own)).map_err(failed)?;
    }
    Ok(own)
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
        if let Some(Options { method, device, bf16, threads, .. }) =
            self.said.without_file().filter(is_experiment)
        {
            launch::alone()?;
            let (device, bf16) = (device.unwrap_or(Device::Auto), bf16.and_then(|said| said.0));
            return Chosen::of(device, bf16, threads.unwrap_or(0))?
                .run(Experiment(method.unwrap_or(Method::Dpo)))
                .map(|_| ExitCode::SUCCESS);
        }
        let mut config = self.said.config()?;
        let launched = launch::launched()?;
        if let Some(Launch { local_rank, rank, .. }) = launched {
            config.device = launch::device(config.device, local_rank);
            hush(rank > 0);
        }
        let chosen = Chosen::of(config.device, config.bf16, config.threads)?;
        let comm = launch::join(launched.as_ref(), &chosen)?;
        // What the run's folder says: the device that it is, not how it was found.
        (config.device, config.threads) = match chosen {
            Chosen::Cpu { threads, .. } => (Device::Cpu, threads),
            Chosen::Gpu { number, .. } => (Device::Cuda(number), 0),
        };
        let chosen = match chosen {
            Chosen::Cpu { threads: 0, bf16 } => Chosen::Cpu { threads: launch::threads(&*comm)?, bf16 },
            other => other,
        };
        let outcome = match chosen.run(Training(&config, &*comm)) {
            Ok(outcome) => outcome,
            // One of them tells, while all are still there.
            Err(e) if launched.is_some() => {
                comm.fail(&e.to_string());
                let (is_asked, speaks) = (signal::interrupted(), comm.speaks());
                if speaks {
                    duel_train::say!("{}{e}", if is_asked { "" } else { "error: " });
                }
                return Ok(if is_asked { ExitCode::from(130) } else { ExitCode::FAILURE });
            }
            Err(e) => return Err(e),
        };
        let leads = comm.rank() == 0;
        drop(comm);
        match outcome {
            Outcome::Done { .. } if !leads => Ok(ExitCode::SUCCESS),
            Outcome::Interrupted { .. } if !leads => Ok(ExitCode::from(130)),
            Outcome::Done { seconds, .. } => {
                tell(format_args!(
                    "done in {seconds:.1} s; the model, metrics.jsonl and metrics.svg are in {}",
                    config.output_dir.display()
                ));
                Ok(ExitCode::SUCCESS)
            }
            Outcome::Interrupted { checkpoint } => {
                let program = std::env::args().next().unwrap_or_else(|| "duel".into());
                let written = config.output_dir.join("duel.toml");
                tell(format_args!(
                    "stopped; {} is saved. To continue:\n  {program} train '{}' --resume-from-checkpoint",
                    checkpoint.display(),
                    written.display()
                ));
                Ok(ExitCode::from(130))
            }
        }
    }
}
