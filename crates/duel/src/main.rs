//! The `duel` command.

mod audit;
mod chat;
mod cycle;
mod drawing;
mod eval;
mod export;
mod frontier;
mod generate;
mod import;
mod inspect;
mod journal;
mod judges;
mod label;
mod losses;
mod merge;
mod plan;
mod report;
mod rows;
mod run;
mod sample;
mod shells;
mod table;
mod theorem;
mod tournament;
mod train;
mod writers;

use audit::Audit;
use chat::Chat;
use clap::{CommandFactory, Parser, Subcommand};
use cycle::CycleWorld;
use duel_train::Error;
use eval::Eval;
use export::Export;
use frontier::Frontier;
use generate::Generate;
use import::Import;
use inspect::Inspect;
use label::Label;
use merge::Merge;
use plan::Plan;
use report::Report;
use sample::Sample;
use shells::{Completions, Man};
use std::io::{Write, stderr};
use std::process::ExitCode;
use table::Table;
use theorem::Theorem;
use tournament::Play;
use train::Train;

/// Preference training of language models: DPO, CPO, ORPO, KTO, SFT, reward models, and what learns from its own
/// samples: PPO, RLOO, GRPO, online DPO.
#[derive(Parser)]
#[command(name = "duel", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model (`duel dpo` and its like: by that method); without model and dataset, the controlled-sentiment
    /// experiment on data made here, by any method
    Train(Box<Train>),
    /// Say what a run would take, without a run: memory, tokens, time
    Plan(Box<Plan>),
    /// Look for what is wrong in files of rows before a run: lengths, copies, contradictions, odd characters
    Audit(Box<Audit>),
    /// Show rows as a run would see them: text, tokens, and what becomes of each
    Inspect(Box<Inspect>),
    /// Put the pairs of a preference file to a policy or a reward model, without training
    Eval(Box<Eval>),
    /// Continue a text
    Generate(Generate),
    /// Talk with a model: answers as they come, over a conversation that stays in its cache
    Chat(Chat),
    /// Draw completions of the prompts of a file
    Sample(Sample),
    /// Judge responses, by words, a program, a model or the truth: scores, pairs, the best of N
    Label(Box<Label>),
    /// Run the methods side by side on data made here, and print one table
    Table(Table),
    /// Let policies play against each other: win matrix, Elo, and the mixture that nobody beats
    Tournament(Box<Play>),
    /// Run a world of preferences in a cycle: a reward model's policy, self-play, and duels with contexts
    Cycle(CycleWorld),
    /// Reward against KL of every method, beside the curves that none is above, on data made here or a user's
    Frontier(Box<Frontier>),
    /// Check what the paper proves, on a language small enough to count: optimum, rate, implied reward, best of n
    Theorem(Theorem),
    /// Make one model of an adapter and the model that it is for
    Merge(Merge),
    /// Write a model as a file of llama.cpp (GGUF)
    Export(Export),
    /// Print a recipe of TRL, LLaMA-Factory or axolotl as a configuration, with what is not taken over
    Import(Import),
    /// Put what runs and studies left on one page: curves, settings, samples, pictures
    Report(Report),
    /// List the losses that loss_type names, with formulas and sources
    Losses,
    /// Print what a shell completes these commands and their options by
    Completions(Completions),
    /// Write the manual: a page of duel, and one of each command
    Man(Man),
}

fn main() -> ExitCode {
    duel_train::signal::outlive_limits();
    // A panic is a fault of duel, and a backtrace of no use to its user. But for what a disk that is full or a reader
    // that is gone do to `println!` and `eprintln!`.
    std::panic::set_hook(Box::new(|info| {
        let said = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        let lost = ["stdout", "stderr"].into_iter().find_map(|name| {
            said.strip_prefix(&format!("failed printing to {name}: ")).map(|why| (name, why))
        });
        // Where this cannot be written either, nothing can be said.
        let _ = match lost {
            Some(("stdout", why)) => writeln!(stderr(), "error: standard output: {why}"),
            Some(_) => Ok(()),
            None => writeln!(stderr(), "error: duel itself failed: {info}; please report it"),
        };
        if lost.is_some() {
            std::process::exit(1);
        }
    }));
    duel_data::watch_templates(|what| {
        drop(writeln!(stderr(), "error: {what}"));
        std::process::exit(1);
    });
    std::panic::catch_unwind(command).unwrap_or(ExitCode::from(101))
}

fn command() -> ExitCode {
    let result = duel::arguments::normalize(std::env::args_os()).and_then(|normal| {
        let cli = Cli::parse_from(normal.args);
        if !matches!(cli.command, Command::Train(_)) {
            duel::launch::alone()?;
        }
        if duel::launch::speaks() {
            normal.notes.iter().for_each(|note| duel_train::say!("note: left out: {note}"));
        }
        match cli.command {
            Command::Train(args) => args.run(),
            Command::Plan(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Audit(args) => args.run(),
            Command::Inspect(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Eval(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Generate(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Chat(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Sample(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Label(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Table(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Tournament(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Cycle(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Frontier(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Theorem(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Merge(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Export(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Import(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Report(args) => args.run().map(|()| ExitCode::SUCCESS),
            Command::Completions(args) => args.run(Cli::command()).map(|()| ExitCode::SUCCESS),
            Command::Man(args) => args.run(Cli::command()).map(|()| ExitCode::SUCCESS),
            Command::Losses => {
                let written = losses::print().map_err(|e| Error::new(format!("standard output: {e}")));
                written.map(|()| ExitCode::SUCCESS)
            }
        }
    });
    result.unwrap_or_else(|e| match duel_train::signal::interrupted() {
        // What was asked for is no error; the code is that of a shell for Ctrl-C.
        true => {
            drop(writeln!(stderr(), "{e}"));
            ExitCode::from(130)
        }
        false => {
            duel::launch::tell_end(&e);
            ExitCode::FAILURE
        }
    })
}
