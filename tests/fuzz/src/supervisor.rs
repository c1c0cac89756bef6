//! Starts workers, watches them, and starts the next one where one died.

use crate::report::{Failure, Report};
use crate::worker::{Line, Outcome};
use crate::{Kind, Source};
use duel_tests::TempDir;
use std::io::{BufRead, BufReader, Error, PipeReader, Result, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long one input may take. Right ones take milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a line says that the fuzzer still runs.
const NEWS: Duration = Duration::from_secs(10);

/// Addresses that a worker may use, in KiB: far more than any input needs, far less than a lie asks for.
const ADDRESSES: &str = "4194304";

/// Bytes that are kept of what a process says beside its answers.
const WORDS: usize = 1000;

/// What to do.
pub struct Plan {
    /// For how long.
    pub seconds: u64,
    /// Where all inputs come from.
    pub seed: u64,
    /// Kinds to try, in turn.
    pub kinds: Vec<&'static Kind>,
    /// Folder for inputs that fail.
    pub out: PathBuf,
}

/// Tries inputs on all cores and prints what became of them; whether none failed.
///
/// # Errors
/// A worker cannot be started, or a failing input cannot be written.
pub fn fuzz(plan: &Plan) -> Result<bool> {
    let started = Instant::now();
    let temporary = TempDir::new()?;
    let run = Run {
        plan,
        end: started + Duration::from_secs(plan.seconds),
        report: Mutex::new(Report::new(&plan.kinds)),
    };
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| -> Result<()> {
        let lane = |first: usize| {
            let (run, folder) = (&run, temporary.path().join(first.to_string()));
            scope.spawn(move || run.lane(first as u64, lanes, &folder))
        };
        let all: Vec<_> = (0..lanes).map(lane).collect();
        let news = scope.spawn(|| run.tell(started));
        for lane in all {
            lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        news.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(())
    })?;
    let report = run.report();
    println!("\n{}", report.text(plan.seed, started.elapsed()));
    Ok(report.is_clean())
}

struct Run<'a> {
    plan: &'a Plan,
    end: Instant,
    report: Mutex<Report>,
}

impl Run<'_> {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Says now and then how it stands.
    fn tell(&self, started: Instant) {
        while self.end.saturating_duration_since(Instant::now()) > NEWS {
            std::thread::sleep(NEWS);
            println!("{:>4} s: {}", started.elapsed().as_secs(), self.report().line());
        }
    }

    /// One worker after another, until the time is over.
    fn lane(&self, first: u64, step: usize, folder: &Path) -> Result<()> {
        let mut next = first;
        loop {
            let (mut worker, lines) = self.start(next, step, folder)?;
            let watched = self.watch(&lines);
            drop(worker.kill()); // it may be gone already
            let status = worker.wait()?;
            let Watched { number, words, end } = watched?;
            let failure = match end {
                End::TimeIsOver => return Ok(()),
                End::Hung => Failure::Hung,
                End::Gone => died(status, words),
            };
            let number = number.ok_or_else(|| Error::other(format!("a worker cannot start: {failure}")))?;
            self.failed(number, failure)?;
            next = number + step as u64;
        }
    }

    fn start(&self, first: u64, step: usize, folder: &Path) -> Result<(Child, Receiver<String>)> {
        let (reader, writer) = pipe()?;
        let mut command = limited(&std::env::current_exe()?);
        let numbers = [("--first", first), ("--step", step as u64), ("--seed", self.plan.seed)];
        let numbers = numbers.iter().flat_map(|(name, number)| [name.to_string(), number.to_string()]);
        let kinds = self.plan.kinds.iter().flat_map(|kind| ["--kind", kind.name]);
        command.arg("--worker").arg(folder).args(numbers).args(kinds);
        // A damaged name of a model is looked for on no network.
        command.env("RUST_BACKTRACE", "0").env("HF_HUB_OFFLINE", "1");
        let worker = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
        Ok((worker, lines(reader)))
    }

    /// Listens to a worker until it is gone, or hangs, or the time is over.
    fn watch(&self, lines: &Receiver<String>) -> Result<Watched> {
        let (mut number, mut words) = (None, String::new());
        let end = loop {
            let left = self.end.saturating_duration_since(Instant::now());
            let line = match lines.recv_timeout(PATIENCE.min(left)) {
                Ok(_) | Err(RecvTimeoutError::Timeout) if left.is_zero() => break End::TimeIsOver,
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if left < PATIENCE => break End::TimeIsOver,
                Err(RecvTimeoutError::Timeout) => break End::Hung,
                Err(RecvTimeoutError::Disconnected) => break End::Gone,
            };
            match (Line::parse(&line), number) {
                (Some(Line::Try(next)), _) => {
                    number = Some(next);
                    words.clear();
                }
                (Some(Line::Done(Outcome::Panicked(place, message))), Some(number)) => {
                    self.failed(number, Failure::Panicked(place, message))?;
                }
                (Some(Line::Done(outcome)), Some(number)) => {
                    self.report().answered(number, outcome == Outcome::Accepted);
                }
                // A loader's, or the last words of a process.
                _ => {
                    if words.len() > WORDS {
                        words.clear();
                    }
                    words += &format!("{line} ");
                }
            }
        };
        Ok(Watched { number, words, end })
    }

    /// Notes a failure; writes the input, and says so, where it is the first of its like.
    fn failed(&self, number: u64, failure: Failure) -> Result<()> {
        let text = failure.to_string();
        let mut report = self.report();
        if !report.failed(number, failure) {
            return Ok(());
        }
        let (kind, seed) = (report.kind(number), self.plan.seed);
        let folder = self.plan.out.join(format!("{}-{seed}-{number}", kind.name));
        crate::write(&folder, &Source::new(kind).input(seed, number))?;
        println!("{}: {text}\n    {}", kind.name, folder.canonicalize()?.display());
        Ok(())
    }
}

/// Why a worker is watched no longer.
enum End {
    TimeIsOver,
    Hung,
    Gone,
}

struct Watched {
    /// The input that it had.
    number: Option<u64>,
    /// What else was said since then.
    words: String,
    end: End,
}

/// How a process ended, in the words of Rust's runtime where it had some.
fn died(status: ExitStatus, words: String) -> Failure {
    let how = match &words {
        w if w.contains("memory allocation") => "out of memory".into(),
        w if w.contains("stack overflow") => "stack overflow".into(),
        _ => status.to_string(),
    };
    Failure::Died(how, words)
}

/// The lines of a pipe as they come.
fn lines(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// A program under a limit of addresses, where the system has one that holds.
fn limited(program: &Path) -> Command {
    if !cfg!(target_os = "linux") {
        return Command::new(program);
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -v "$0" && exec "$@""#, ADDRESSES]).arg(program);
    shell
}
