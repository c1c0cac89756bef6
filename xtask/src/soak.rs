//! `cargo xtask soak`: runs that go on for long. One is left alone, its twin is killed, stopped and paused again and
//! again: the memory of the first has to stay as it was, and both have to end in the same bytes.

use crate::left::{Files, left, same};
use crate::{command, signal, start, tiny};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "cargo xtask soak [--minutes N] [--out DIR]

  --minutes N  how long each of the two kinds of run goes on [default: 30]
  --out DIR    where the runs and the curves of their memory go [default: target/soak]";

/// What is run: from rows that are there, and from rows that it samples and has judged.
const KINDS: [(&str, &[&str]); 2] = [
    ("dpo", &["--dataset", "../pairs.jsonl", "--eval-dataset", "../held.jsonl"]),
    (
        "rloo",
        &[
            "--method",
            "rloo",
            "--dataset",
            "../prompts.jsonl",
            "--judge",
            "lexicon:../words.tsv",
            "--max-completion-length",
            "8",
        ],
    ),
];
const ROWS: usize = 640;
/// Into how many parts a curve is cut, and how much more than the second the last may take: allocators keep what they
/// were given, and memory is counted in pages.
const PARTS: usize = 10;
const MORE: f64 = 1.01;
const MORE_BYTES: f64 = 512.0 * 1024.0;
/// What the twin meets, in turn, each so long after it was started.
const BETWEEN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(3);

/// Starts both kinds of run, one after the other.
pub fn run(rest: &[String]) -> Result<(), u8> {
    let (mut minutes, mut out) = (30.0, crate::target_dir().join("soak"));
    let mut rest = rest.iter();
    while let Some(option) = rest.next() {
        match (option.as_str(), rest.next()) {
            ("--minutes", Some(n)) if n.parse::<f64>().is_ok_and(|n| n > 0.0) => {
                minutes = n.parse().unwrap_or(minutes);
            }
            ("--out", Some(folder)) => out = PathBuf::from(folder),
            _ => {
                eprintln!("{USAGE}");
                return Err(2);
            }
        }
    }
    start(&mut command(&["build", "--package", "duel"], &[]))?;
    let long = Duration::from_secs_f64(minutes * 60.0);
    KINDS.iter().try_for_each(|(kind, options)| soak(&out, kind, options, long)).map_err(crate::report)
}

/// A kind of run, begun on an empty folder.
fn soak(out: &Path, kind: &str, options: &[&str], long: Duration) -> Result<(), String> {
    let runs = Runs::new(&out.join(kind), options)?;
    let steps = runs.steps_of(long)?;
    println!("{kind}: {steps} steps in about {:.0} minutes", long.as_secs_f64() / 60.0);
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
        "{kind}: {steps} steps in {:.1} minutes; the same bytes in {} files after {} kills, {} stops, {} pauses",
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
    options: &'a [&'a str],
}

/// What a process has at a moment.
struct Moment {
    seconds: f64,
    bytes: f64,
    files: usize,
    threads: usize,
}

impl<'a> Runs<'a> {
    fn new(folder: &Path, options: &'a [&'a str]) -> Result<Self, String> {
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
        Ok(Runs { folder, program, options })
    }

    fn start(&self, name: &str, steps: u64, more: &[&str]) -> Result<Child, String> {
        let own = self.folder.join(name);
        fs::create_dir_all(&own).map_err(|e| format!("{}: {e}", own.display()))?;
        let said = File::options().create(true).append(true).open(own.join("said.txt"));
        let mut duel = Command::new(&self.program);
        duel.args(["train", "--device", "cpu", "--model", "../model", "--output-dir", "out"]);
        duel.args(["--per-device-train-batch-size", "8", "--learning-rate", "1e-4"]);
        // Not more of them the longer it goes on: what was logged goes into every checkpoint again.
        let every = |times: u64, least: u64| (steps / times).max(least).to_string();
        let (save, log) = (every(200, 500), every(2000, 100));
        duel.args(["--save-strategy", "steps", "--save-steps", &save, "--save-total-limit", "2"]);
        duel.args(["--logging-steps", &log, "--max-steps", &steps.to_string()]);
        if self.options.contains(&"--eval-dataset") {
            duel.args(["--eval-steps", &save]);
        }
        duel.args(self.options).args(more).current_dir(&own);
        duel.stdin(Stdio::null()).stdout(Stdio::null());
        duel.stderr(said.map_err(|e| format!("{}: {e}", own.display()))?);
        duel.spawn().map_err(|e| format!("{}: {e}", self.program.display()))
    }

    /// How many steps a run makes in that time.
    fn steps_of(&self, long: Duration) -> Result<u64, String> {
        let steps = 500;
        let begun = Instant::now();
        let done = self.start("tried", steps, &["--threads", "1"])?.wait().map_err(|e| e.to_string())?;
        if !done.success() {
            return Err(format!("the run fails; {} says why", self.folder.join("tried/said.txt").display()));
        }
        Ok((long.as_secs_f64() / begun.elapsed().as_secs_f64() * steps as f64) as u64)
    }

    /// The run that is left alone, and what it has meanwhile.
    fn alone(&self, steps: u64) -> Result<Vec<Moment>, String> {
        let mut run = self.start("alone", steps, &["--threads", "1"])?;
        let begun = Instant::now();
        let mut curve = Vec::new();
        loop {
            if let Some(status) = run.try_wait().map_err(|e| e.to_string())? {
                return match status.success() {
                    true => Ok(curve),
                    false => Err("the run that was left alone failed; its said.txt says why".into()),
                };
            }
            curve.extend(moment(run.id(), begun));
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// The twin on two threads, which is killed, stopped and paused in turn; how often each.
    fn disturbed(&self, steps: u64) -> Result<[u32; 3], String> {
        let mut met = [0; 3];
        let mut run = self.start("twin", steps, &["--threads", "2"])?;
        for what in (0..3).cycle() {
            let begun = Instant::now();
            while begun.elapsed() < BETWEEN {
                if let Some(status) = run.try_wait().map_err(|e| e.to_string())? {
                    return match status.success() {
                        true => Ok(met),
                        false => Err("the twin failed; its said.txt says why".into()),
                    };
                }
                thread::sleep(Duration::from_millis(100));
            }
            let id = run.id();
            met[what] += 1;
            match what {
                0 => signal(id, "KILL"),
                1 => signal(id, "TERM"),
                _ => {
                    signal(id, "STOP");
                    thread::sleep(PAUSE);
                    signal(id, "CONT");
                    continue;
                }
            }
            run.wait().map_err(|e| e.to_string())?;
            run = self.start("twin", steps, &["--threads", "2", "--resume-from-checkpoint"])?;
        }
        unreachable!("a cycle has no end")
    }

    fn left(&self, name: &str) -> Result<Files, String> {
        left(&self.folder.join(name).join("out"))
    }
}

/// None for a process that is over.
fn moment(process: u32, begun: Instant) -> Option<Moment> {
    let folder = PathBuf::from(format!("/proc/{process}"));
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let number = |key: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    Some(Moment {
        seconds: begun.elapsed().as_secs_f64(),
        bytes: number("RssAnon")? * 1024.0,
        files: fs::read_dir(folder.join("fd")).ok()?.count(),
        threads: number("Threads")? as usize,
    })
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
