//! `cargo xtask soak`: runs that go on for long. One is left alone, its twin is killed, stopped and paused again and
//! again: the memory of the first has to stay as it was, and both have to end in the same bytes.

use crate::left::{Files, left, same};
use crate::mpi::{self, children, mpirun};
use crate::{command, signal, start, tiny};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "cargo xtask soak [--minutes N] [--out DIR] [KIND]...

  KIND         dpo, rloo, or ranks: dpo of several processes under mpirun [default: all three]
  --minutes N  how long each kind of run would go on if nothing ran beside it [default: 30]
  --out DIR    where the runs and the curves of their memory go [default: target/soak]";

/// What is run: from rows that are there, from rows that it samples and has judged, and by several processes.
const KINDS: [Kind; 3] = [
    Kind { name: "dpo", options: &PAIRS, ranks: 1 },
    Kind {
        name: "rloo",
        options: &[
            "--method",
            "rloo",
            "--dataset",
            "../prompts.jsonl",
            "--judge",
            "lexicon:../words.tsv",
            "--max-completion-length",
            "8",
        ],
        ranks: 1,
    },
    Kind { name: "ranks", options: &PAIRS, ranks: 2 },
];
const PAIRS: [&str; 4] = ["--dataset", "../pairs.jsonl", "--eval-dataset", "../held.jsonl"];

struct Kind {
    name: &'static str,
    options: &'static [&'static str],
    /// Processes of the run that is left alone; where it is more than one, its twin goes on with more and fewer.
    ranks: usize,
}

/// Ranks that a run can have at most, where it has several.
const SHARES: usize = 4;
const ROWS: usize = 640;
/// Into how many parts a curve is cut, and how much more than the second the last may take: allocators keep what they
/// were given, and memory is counted in pages.
const PARTS: usize = 10;
const MORE: f64 = 1.01;
const MORE_BYTES: f64 = 512.0 * 1024.0;
/// Checkpoints of a run.
const CHECKPOINTS: u64 = 200;
/// What the twin meets, in turn, each so long after it was started, or as long as three checkpoints take if that is
/// more: it has to get on.
const BETWEEN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(3);

/// Starts runs of these kinds, or of all, one after the other.
pub fn run(rest: &[String]) -> Result<(), u8> {
    let (mut minutes, mut out, mut kinds) = (30.0, crate::target_dir().join("soak"), Vec::new());
    let mut rest = rest.iter();
    let usage = || {
        eprintln!("{USAGE}");
        2
    };
    while let Some(given) = rest.next() {
        match given.as_str() {
            "--minutes" => {
                let n = rest.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0.0);
                minutes = n.ok_or_else(usage)?;
            }
            "--out" => out = rest.next().map(PathBuf::from).ok_or_else(usage)?,
            name => kinds.push(KINDS.iter().find(|kind| kind.name == name).ok_or_else(usage)?),
        }
    }
    if kinds.is_empty() {
        kinds = KINDS.iter().collect();
    }
    let long = Duration::from_secs_f64(minutes * 60.0);
    kinds.into_iter().try_for_each(|kind| {
        if kind.ranks == 1 {
            start(&mut command(&["build", "--package", "duel"], &[]))?;
        } else if mpi::is_there() {
            mpi::build()?;
        } else {
            return Ok(());
        }
        soak(&out, kind, long).map_err(crate::report)
    })
}

/// A kind of run, begun on an empty folder.
fn soak(out: &Path, kind: &Kind, long: Duration) -> Result<(), String> {
    let (name, runs) = (kind.name, Runs::new(&out.join(kind.name), kind, long)?);
    let steps = runs.steps_of(long)?;
    println!("{name}: {steps} steps in about {:.0} minutes", long.as_secs_f64() / 60.0);
    let begun = Instant::now();
    let (curve, met) = thread::scope(|scope| {
        let twin = scope.spawn(|| runs.disturbed(steps));
        (runs.alone(steps), twin.join())
    });
    let grew = flat(&curve?, &runs.folder.join("memory.csv"));
    let met = met.map_err(|_| "the twin's thread panicked")??;
    let (alone, twin) = (runs.left("alone")?, runs.left("twin")?);
    same("twin", &alone, &twin)?;
    println!(
        "{name}: {steps} steps in {:.1} minutes; the same bytes in {} files after {} kills, {} stops, {} pauses",
        begun.elapsed().as_secs_f64() / 60.0,
        alone.len(),
        met[0],
        met[1],
        met[2]
    );
    grew
}

struct Runs<'a> {
    folder: PathBuf,
    program: PathBuf,
    kind: &'a Kind,
    between: Duration,
}

/// A run.
struct Run {
    /// Its process, or mpirun.
    child: Child,
    of_ranks: bool,
    /// What it says.
    said: PathBuf,
}

impl Run {
    /// The processes that train.
    fn processes(&self) -> Vec<u32> {
        if self.of_ranks { children(self.child.id()) } else { vec![self.child.id()] }
    }

    /// Whether it is over.
    ///
    /// # Errors
    /// It failed, or cannot be asked.
    fn is_over(&mut self) -> Result<bool, String> {
        match self.child.try_wait() {
            Ok(None) => Ok(false),
            Ok(Some(status)) if status.success() => Ok(true),
            Ok(Some(_)) => Err(format!("a run fails that should go on; {} says why", self.said.display())),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// What the processes of a run have at a moment, together.
struct Moment {
    seconds: f64,
    bytes: f64,
    files: usize,
    threads: usize,
}

impl<'a> Runs<'a> {
    fn new(folder: &Path, kind: &'a Kind, long: Duration) -> Result<Self, String> {
        let failed = |e| format!("{}: {e}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(failed)?;
        }
        fs::create_dir_all(folder.join("model")).map_err(failed)?;
        tiny::write(&folder.join("model"))?;
        fs::write(folder.join("pairs.jsonl"), tiny::pairs(0..ROWS)).map_err(failed)?;
        fs::write(folder.join("held.jsonl"), tiny::pairs(ROWS..ROWS + 64)).map_err(failed)?;
        fs::write(folder.join("prompts.jsonl"), tiny::prompts(0..ROWS)).map_err(failed)?;
        fs::write(folder.join("words.tsv"), "a\t1\nb\t-0.5\n").map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        // Of its own: another build may take the place of the program within the hour.
        let program = folder.join("duel");
        fs::copy(crate::target_dir().join("debug/duel"), &program).map_err(failed)?;
        Ok(Runs { folder, program, kind, between: BETWEEN.max(3 * long / CHECKPOINTS as u32) })
    }

    /// Starts a run of so many ranks, or, where it has one, threads.
    fn start(&self, name: &str, how_many: usize, steps: u64, more: &[&str]) -> Result<Run, String> {
        let own = self.folder.join(name);
        fs::create_dir_all(&own).map_err(|e| format!("{}: {e}", own.display()))?;
        let said = own.join("said.txt");
        let of_ranks = self.kind.ranks > 1;
        let mut duel = if of_ranks { mpirun(how_many, &self.program) } else { Command::new(&self.program) };
        duel.args(["train", "--device", "cpu", "--model", "../model", "--output-dir", "out"]);
        duel.args(["--per-device-train-batch-size", "8", "--learning-rate", "1e-4"]);
        if of_ranks {
            duel.args(["--gradient-shares", &SHARES.to_string(), "--threads", "1"]);
        } else {
            duel.args(["--threads", &how_many.to_string()]);
        }
        // Not more of them the longer it goes on: what was logged goes into every checkpoint again.
        let every = |times: u64, least: u64| (steps / times).max(least).to_string();
        let (save, log) = (every(CHECKPOINTS, 500), every(2000, 100));
        duel.args(["--save-strategy", "steps", "--save-steps", &save, "--save-total-limit", "2"]);
        duel.args(["--logging-steps", &log, "--max-steps", &steps.to_string()]);
        if self.kind.options.contains(&"--eval-dataset") {
            duel.args(["--eval-steps", &save]);
        }
        duel.args(self.kind.options).args(more).current_dir(&own);
        duel.stdin(Stdio::null()).stdout(Stdio::null());
        let file = File::options().create(true).append(true).open(&said);
        duel.stderr(file.map_err(|e| format!("{}: {e}", said.display()))?);
        let child = duel.spawn().map_err(|e| format!("{}: {e}", duel.get_program().display()))?;
        Ok(Run { child, of_ranks, said })
    }

    /// How many steps a run makes in that time.
    fn steps_of(&self, long: Duration) -> Result<u64, String> {
        let steps = 500;
        let begun = Instant::now();
        let mut run = self.start("tried", self.kind.ranks, steps, &[])?;
        while !run.is_over()? {
            thread::sleep(Duration::from_millis(5));
        }
        Ok((long.as_secs_f64() / begun.elapsed().as_secs_f64() * steps as f64) as u64)
    }

    /// The run that is left alone, and what it has meanwhile.
    fn alone(&self, steps: u64) -> Result<Vec<Moment>, String> {
        let mut run = self.start("alone", self.kind.ranks, steps, &[])?;
        let begun = Instant::now();
        let mut curve = Vec::new();
        while !run.is_over()? {
            // Not while ranks come or go.
            let processes = run.processes();
            if processes.len() == self.kind.ranks {
                curve.extend(moment(&processes, begun));
            }
            thread::sleep(Duration::from_millis(500));
        }
        Ok(curve)
    }

    /// The twin, on two threads or on 4, 3, 2 and 1 ranks, which is killed, stopped and paused in turn: one rank of it,
    /// where it has several. How often each.
    fn disturbed(&self, steps: u64) -> Result<[usize; 3], String> {
        let mut met = [0; 3];
        let how_many = |starts: usize| if self.kind.ranks > 1 { SHARES - starts % SHARES } else { 2 };
        let mut run = self.start("twin", how_many(0), steps, &[])?;
        for what in (0..3).cycle() {
            let begun = Instant::now();
            while begun.elapsed() < self.between {
                if run.is_over()? {
                    return Ok(met);
                }
                thread::sleep(Duration::from_millis(100));
            }
            let processes = run.processes();
            let Some(&process) = processes.get(met[what] % processes.len().max(1)) else { continue };
            met[what] += 1;
            match what {
                0 => signal(process, "KILL"),
                1 => signal(process, "TERM"),
                _ => {
                    signal(process, "STOP");
                    thread::sleep(PAUSE);
                    signal(process, "CONT");
                    continue;
                }
            }
            run.child.wait().map_err(|e| e.to_string())?;
            run = self.start("twin", how_many(met[0] + met[1]), steps, &["--resume-from-checkpoint"])?;
        }
        unreachable!("a cycle has no end")
    }

    fn left(&self, name: &str) -> Result<Files, String> {
        left(&self.folder.join(name).join("out"))
    }
}

/// None where one of the processes is over.
fn moment(processes: &[u32], begun: Instant) -> Option<Moment> {
    let mut all = Moment { seconds: begun.elapsed().as_secs_f64(), bytes: 0.0, files: 0, threads: 0 };
    for process in processes {
        let folder = PathBuf::from(format!("/proc/{process}"));
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let number = |key: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        };
        all.bytes += number("RssAnon")? * 1024.0;
        all.files += fs::read_dir(folder.join("fd")).ok()?.count();
        all.threads += number("Threads")? as usize;
    }
    Some(all)
}

/// Prints a curve in parts and writes it whole.
///
/// # Errors
/// The last part has more than the second; what a run takes at its start is in the first.
fn flat(curve: &[Moment], file: &Path) -> Result<(), String> {
    let mut csv = String::from("seconds,bytes,files,threads\n");
    for m in curve {
        csv += &format!("{:.1},{},{},{}\n", m.seconds, m.bytes, m.files, m.threads);
    }
    File::create(file)
        .and_then(|mut out| out.write_all(csv.as_bytes()))
        .map_err(|e| format!("{}: {e}", file.display()))?;
    let parts: Vec<&[Moment]> = curve.chunks(curve.len().div_ceil(PARTS).max(1)).collect();
    let mean = |part: &[Moment]| part.iter().map(|m| m.bytes).sum::<f64>() / part.len() as f64;
    println!("  minutes   mean MB   most MB   files   threads");
    for part in &parts {
        let most = part.iter().map(|m| m.bytes).fold(0.0, f64::max);
        let [files, threads] =
            [|m: &Moment| m.files, |m: &Moment| m.threads].map(|of| part.iter().map(of).max().unwrap_or(0));
        println!(
            "  {:7.1} {:9.2} {:9.2} {files:7} {threads:9}",
            part.last().map_or(0.0, |m| m.seconds / 60.0),
            mean(part) / 1e6,
            most / 1e6
        );
    }
    let [_, second, .., last] = parts[..] else {
        return Err("too short for a curve: give it more minutes".into());
    };
    let (before, after) = (mean(second), mean(last));
    match after <= before * MORE + MORE_BYTES {
        true => Ok(()),
        false => {
            Err(format!("memory grew from {:.2} to {:.2} MB: {}", before / 1e6, after / 1e6, file.display()))
        }
    }
}
