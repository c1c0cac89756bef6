//! The `duel` command.

use clap::{Args, Parser, Subcommand};
use duel_backend::Backend;
use duel_cpu::Cpu;
use duel_cuda::Cuda;
use duel_data::{Context, Message, Tokenizer};
use duel_model::{Folder, Sampling};
use duel_train::config::{Config, Device, Maybe, Options, normalize_args};
use duel_train::experiment::{self, Finding};
use duel_train::sample::sample;
use duel_train::{Error, Outcome, signal, train};
use half::bf16;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Preference training: SFT and DPO of Llama-family and GPT-2 models.
#[derive(Parser)]
#[command(name = "duel", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model; without arguments, the controlled-sentiment experiment on data made here
    Train(Box<Train>),
    /// Continue a text
    Generate(Generate),
}

#[derive(Args)]
struct Train {
    /// TOML file with any of the keys below; the command line wins
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
struct Generate {
    /// Folder of the model
    #[arg(long)]
    model: PathBuf,
    /// Text to continue; through the chat template, as the user's message, with --chat
    #[arg(long, allow_hyphen_values = true)]
    prompt: String,
    /// Treat the prompt as a user's message
    #[arg(long)]
    chat: bool,
    /// Longest continuation in tokens
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    /// Sampling temperature; 0: always the likeliest token
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Sample among this many likeliest tokens; 0: all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Sample among the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Seed of the sampling
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    machine: Machine,
}

/// Where a command that has no other options of a run works.
#[derive(Args)]
struct Machine {
    /// Device: cpu, cuda (the first GPU), cuda:N, or auto: a GPU where there is one
    #[arg(long, default_value_t = Device::Auto)]
    device: Device,
    /// Compute in bfloat16; GPU only. none: on a GPU, yes
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "none")]
    bf16: Maybe<bool>,
    /// Threads on the CPU; 0: one per core
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    threads: u16,
}

fn main() -> ExitCode {
    // A panic is a fault of duel, and a backtrace of no use to its user.
    std::panic::set_hook(Box::new(|info| eprintln!("error: duel itself failed: {info}; please report it")));
    std::panic::catch_unwind(command).unwrap_or(ExitCode::from(101))
}

fn command() -> ExitCode {
    let result = normalize_args(std::env::args_os()).and_then(|args| match Cli::parse_from(args).command {
        Command::Train(args) => train_command(*args),
        Command::Generate(args) => generate_command(&args).map(|()| ExitCode::SUCCESS),
    });
    result.unwrap_or_else(|e| {
        eprintln!("error: {e}");
        ExitCode::FAILURE
    })
}

// ---- devices ---------------------------------------------------------------------------------------------------------

/// Work that any backend can do.
trait Job: Send {
    type Output: Send;
    fn run<B: Backend>(self, b: &B) -> Result<Self::Output, Error>;
}

/// A device that is there, and what it computes in.
enum Chosen {
    Cpu(usize),
    Gpu { number: usize, gpu: Box<duel_cuda::Device>, bf16: bool },
}

impl Chosen {
    /// The one place where a device is chosen. `auto` says why it is the CPU where it is.
    fn of(device: Device, bf16: Maybe<bool>, threads: usize) -> Result<Self, Error> {
        let number = match device {
            Device::Cpu => None,
            // The common case: without a driver nothing else is looked for.
            Device::Auto => duel_cuda::has_driver().then_some(0),
            Device::Cuda(number) => Some(number),
        };
        let why = match number.map(|number| (number, duel_cuda::Device::open(number))) {
            Some((number, Ok(gpu))) => {
                if threads > 0 {
                    eprintln!("threads has no effect: the GPU is used");
                }
                return Ok(Chosen::Gpu { number, gpu: Box::new(gpu), bf16: bf16.0.unwrap_or(true) });
            }
            Some((_, Err(e))) if device != Device::Auto => {
                return Err(Error::new(format!("device {device}: {e}; give --device cpu to do without")));
            }
            Some((_, Err(e))) => format!("no GPU can be used: {e}"),
            None if device == Device::Auto => "there is no NVIDIA driver".into(),
            None => String::new(),
        };
        if bf16.0 == Some(true) {
            let why = if why.is_empty() { "device is cpu" } else { &why };
            return Err(Error::new(format!(
                "bf16 needs a GPU, on the CPU the arithmetic is in float32; {why}; remove --bf16"
            )));
        }
        if !why.is_empty() {
            eprintln!("device auto: the CPU, since {why}");
        }
        Ok(Chosen::Cpu(threads))
    }

    fn run<J: Job>(self, job: J) -> Result<J::Output, Error> {
        match self {
            Chosen::Cpu(threads) => {
                let cpu = Cpu::<f32>::new(threads);
                cpu.install(|| job.run(&cpu))
            }
            Chosen::Gpu { gpu, bf16: true, .. } => job.run(&Cuda::<_, bf16>::new(*gpu)),
            Chosen::Gpu { gpu, bf16: false, .. } => job.run(&Cuda::<_, f32>::new(*gpu)),
        }
    }
}

// ---- training --------------------------------------------------------------------------------------------------------

struct Experiment;

impl Job for Experiment {
    type Output = Finding;
    fn run<B: Backend>(self, b: &B) -> Result<Finding, Error> {
        experiment::run(b, Path::new("runs/sentiment"), 42)
    }
}

struct Training<'a>(&'a Config);

impl Job for Training<'_> {
    type Output = Outcome;
    fn run<B: Backend>(self, b: &B) -> Result<Outcome, Error> {
        train(b, self.0)
    }
}

/// Whether nothing is said but where to work.
fn is_experiment(options: &Options) -> bool {
    let machine = Options {
        device: options.device,
        bf16: options.bf16.clone(),
        threads: options.threads,
        ..Options::default()
    };
    *options == machine
}

fn train_command(args: Train) -> Result<ExitCode, Error> {
    signal::listen();
    if args.config.is_none() && is_experiment(&args.options) {
        let Options { device, bf16, threads, .. } = args.options;
        let (device, bf16) = (device.unwrap_or(Device::Auto), bf16.unwrap_or(Maybe(None)));
        return Chosen::of(device, bf16, threads.unwrap_or(0))?.run(Experiment).map(|_| ExitCode::SUCCESS);
    }
    let file = args.config.as_deref().map(Options::read).transpose()?.unwrap_or_default();
    let mut config = args.options.or(file).resolve()?;
    let chosen = Chosen::of(config.device, config.bf16.clone(), config.threads)?;
    // What the run's folder says: the device that it is, not how it was found.
    (config.device, config.threads) = match chosen {
        Chosen::Cpu(threads) => (Device::Cpu, threads),
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

// ---- generation ------------------------------------------------------------------------------------------------------

struct Generation<'a> {
    folder: &'a Folder,
    prompt: Vec<u32>,
    how: Sampling,
    stop: Vec<u32>,
}

impl Job for Generation<'_> {
    type Output = Vec<u32>;
    fn run<B: Backend>(self, b: &B) -> Result<Vec<u32>, Error> {
        eprintln!("{}", b.describe());
        let weights = duel_model::load_frozen(b, self.folder)?;
        let out = sample(b, self.folder.config(), &weights, &[self.prompt], self.how, &self.stop, |_| {})?;
        Ok(out.into_iter().flatten().collect())
    }
}

fn generate_command(args: &Generate) -> Result<(), Error> {
    let folder = Folder::open(&args.model)?;
    folder.notes().iter().for_each(|note| eprintln!("note: {note}"));
    let tokenizer = Tokenizer::from_dir(&args.model)?;
    let prompt = if args.chat {
        let chat = tokenizer.chat(&[Message::new("user", &args.prompt)], true, &Context::default())?;
        tokenizer.encode(&chat.text, false)?
    } else {
        tokenizer.encode_prompt(&args.prompt)?
    };
    let how = Sampling {
        max_new_tokens: args.max_new_tokens as usize,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
    };
    if !(how.temperature >= 0.0 && how.top_p > 0.0 && how.top_p <= 1.0) {
        return Err(Error::new("--temperature must be 0 or above, --top-p above 0 and at most 1"));
    }
    let stop = tokenizer.stops().to_vec();
    let machine = &args.machine;
    let chosen = Chosen::of(machine.device, machine.bf16.clone(), machine.threads.into())?;
    let out = chosen.run(Generation { folder: &folder, prompt, how, stop })?;
    println!("{}", tokenizer.decode(&out, true)?);
    Ok(())
}
