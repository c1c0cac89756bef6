//! A process that tries inputs and says what became of each. It may die of one; the supervisor then knows which.

use crate::{Files, Kind, Source};
use std::fmt;
use std::io::{Result, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;

/// In front of every line that is for the supervisor: loaders print too.
const MARK: &str = "@fuzz ";

/// What became of an input that did not end the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was read.
    Accepted,
    /// It was refused, with an error.
    Refused,
    /// A panic came out of the loader: the place, and what it said.
    Panicked(String, String),
}

/// A line for the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Input of this number comes next.
    Try(u64),
    /// The last one is done.
    Done(Outcome),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line of its own, whatever a loader printed before it.
        write!(f, "\n{MARK}")?;
        match self {
            Line::Try(number) => write!(f, "try {number}"),
            Line::Done(Outcome::Accepted) => write!(f, "accepted"),
            Line::Done(Outcome::Refused) => write!(f, "refused"),
            Line::Done(Outcome::Panicked(place, message)) => {
                write!(f, "panicked {place} {}", message.replace(['\n', '\r'], " "))
            }
        }
    }
}

impl Line {
    /// What a worker meant by a line; none where it was a loader that printed it.
    pub fn parse(line: &str) -> Option<Line> {
        let line = line.strip_prefix(MARK)?;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "try" => Line::Try(rest.parse().ok()?),
            "accepted" => Line::Done(Outcome::Accepted),
            "refused" => Line::Done(Outcome::Refused),
            _ => {
                let (place, message) = rest.split_once(' ')?;
                Line::Done(Outcome::Panicked(place.into(), message.into()))
            }
        })
    }
}

/// The last panic of any thread: where and what.
static PANIC: Mutex<(String, String)> = Mutex::new((String::new(), String::new()));

/// Loads an input in `folder`, and lives on after a panic.
///
/// # Errors
/// The folder cannot be written.
pub fn attempt(kind: &Kind, folder: &Path, input: &Files) -> Result<Outcome> {
    crate::write(folder, input)?;
    Ok(match catch_unwind(AssertUnwindSafe(|| (kind.load)(folder))) {
        Ok(Ok(())) => Outcome::Accepted,
        Ok(Err(_)) => Outcome::Refused,
        Err(_) => {
            let (place, message) = PANIC.lock().unwrap_or_else(|p| p.into_inner()).clone();
            Outcome::Panicked(place, message)
        }
    })
}

/// Keeps panics for [`attempt`] instead of printing them.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        // `tokenizers-0.23.2/src/...`, wherever this machine keeps crates.
        let crates = place.split_once("/registry/src/").and_then(|(_, path)| path.split_once('/'));
        let place = crates.map_or(&*place, |(_, path)| path);
        let payload = info.payload();
        let message =
            payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(|s| &**s));
        let message = message.unwrap_or("it did not say why");
        *PANIC.lock().unwrap_or_else(|p| p.into_inner()) = (place.replace(' ', "_"), message.to_owned());
    }));
}

/// Tries every `step`-th input from number `first` on, the kinds in turn, until it is killed.
///
/// # Errors
/// The folder cannot be written, or nobody listens.
pub fn work(kinds: &[&'static Kind], folder: &Path, seed: u64, first: u64, step: usize) -> Result<()> {
    keep_panics();
    let sources: Vec<Source> = kinds.iter().copied().map(Source::new).collect();
    let mut out = std::io::stdout();
    for number in (first..).step_by(step) {
        let source = &sources[(number % sources.len() as u64) as usize];
        let input = source.input(seed, number);
        writeln!(out, "{}", Line::Try(number))?;
        out.flush()?;
        let outcome = attempt(source.kind, folder, &input)?;
        writeln!(out, "{}", Line::Done(outcome))?;
    }
    Ok(())
}
