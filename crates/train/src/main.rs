//! The `duel` command.

use clap::{Args, Parser, Subcommand};
use duel_cpu::Cpu;
use duel_data::{Message, Tokenizer};
use duel_model::{Config as ModelConfig, Sampling};
use duel_train::config::{Device, Options, normalize_args};
use duel_train::sample::{sample, stop_tokens};
use duel_train::{Error, Outcome, experiment, signal, train};
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
    /// Threads; 0: one per core
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    threads: u16,
}

fn main() -> ExitCode {
    let result = normalize_args(std::env::args_os()).and_then(|args| match Cli::parse_from(args).command {
        Command::Train(args) => train_command(*args),
        Command::Generate(args) => generate_command(&args).map(|()| ExitCode::SUCCESS),
    });
    result.unwrap_or_else(|e| {
        eprintln!("error: {e}");
        ExitCode::FAILURE
    })
}

fn train_command(args: Train) -> Result<ExitCode, Error> {
    signal::listen();
    if args.config.is_none() && args.options == Options::default() {
        let cpu = Cpu::<f32>::new(0);
        return cpu
            .install(|| experiment::run(&cpu, Path::new("runs/sentiment"), 42))
            .map(|_| ExitCode::SUCCESS);
    }
    let file = args.config.as_deref().map(Options::read).transpose()?.unwrap_or_default();
    let config = args.options.or(file).resolve()?;
    // The one place where a device is chosen.
    let outcome = match config.device {
        Device::Auto | Device::Cpu => {
            let cpu = Cpu::<f32>::new(config.threads);
            cpu.install(|| train(&cpu, &config))?
        }
    };
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

fn generate_command(args: &Generate) -> Result<(), Error> {
    let tokenizer = Tokenizer::from_dir(&args.model)?;
    let model = ModelConfig::from_dir(&args.model)?;
    let ids = if args.chat {
        let text = tokenizer.chat(&[Message::new("user", &args.prompt)], true)?;
        tokenizer.encode(&text, false)?
    } else {
        tokenizer.encode(&args.prompt, true)?
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
    let cpu = Cpu::<f32>::new(args.threads.into());
    let weights = duel_model::load_frozen(&cpu, &args.model, &model)?;
    let stop = stop_tokens(&args.model, &tokenizer);
    let prompts = [ids];
    let out = cpu.install(|| sample(&cpu, &model, &weights, &prompts, how, &stop, |_| {}))?;
    println!("{}", tokenizer.decode(&out[0], true)?);
    Ok(())
}
