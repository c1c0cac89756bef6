//! Commands on a disk that fails on purpose (`crates/disk/README.md`): at every operation, or at some of them.

use crate::common::{Ended, Run, Temp, timeless};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What `DUEL_DISK_FAULT` knows.
const KINDS: [&str; 4] = ["full", "fail", "kill", "torn"];

/// Files that say what the last of several commands did itself.
const OF_THE_LAST: [&str; 3] = ["out/train_results.json", "out/all_results.json", "out/trainer_state.json"];

/// Arguments of a command, given what is in its folder.
type Args<'a> = Box<dyn Fn(&Path) -> Vec<String> + Sync + 'a>;

/// A command that is given again until it ends well, in a folder of its own.
struct Job<'a> {
    name: &'a str,
    args: Args<'a>,
    /// Points of each kind that a test tries.
    few: usize,
}

/// How it went, of the points of one kind.
#[derive(Default)]
struct Tally {
    points: AtomicUsize,
    errors: AtomicUsize,
    gone: AtomicUsize,
}

impl Job<'_> {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.args((self.args)(folder)).current_dir(folder).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn ends_well(&self, folder: &Path, after: &str) {
        let ended = Ended::of(self.command(folder).output().unwrap());
        assert_eq!(ended.code, Some(0), "{} again, after {after}:\n{}", self.name, ended.stderr);
    }

    /// Has the disk do `fault` once; the command is given again, and everything is as in `whole`. A checkpoint that is
    /// there meanwhile is one of `checkpoints`.
    fn fail(&self, folder: &Path, fault: &str, whole: &Files, checkpoints: &Files, tally: &Tally) {
        fs::create_dir_all(folder).unwrap();
        let mut command = self.command(folder);
        let ended = Ended::of(command.env("DUEL_DISK_FAULT", fault).output().unwrap());
        tally.points.fetch_add(1, Ordering::Relaxed);
        match ended.code {
            None => {
                tally.gone.fetch_add(1, Ordering::Relaxed);
            }
            Some(0) => {}
            Some(_) => {
                ended.error();
                tally.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        let after = format!("{fault} of {}", self.name);
        for (name, bytes) in files(folder).iter().filter(|(name, _)| is_of_checkpoint(name)) {
            assert!(checkpoints.get(name) == Some(bytes), "{name} is not whole after {after}");
        }
        self.ends_well(folder, &after);
        same(&files(folder), whole, &after);
        fs::remove_dir_all(folder).unwrap();
    }
}

/// Files by their paths in a folder, with their bytes but for times.
type Files = BTreeMap<String, Vec<u8>>;

fn files(folder: &Path) -> Files {
    let mut all = Files::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            match path.is_dir() {
                // Event files say when they began, and by which process.
                true if name == "out/runs" => {}
                true => left.push(path),
                false if OF_THE_LAST.contains(&&*name) => {}
                false => drop(all.insert(name, timeless(&path))),
            }
        }
    }
    all
}

/// Whether it is a file of a finished checkpoint that is the same in every run: not its configuration, which says how
/// many there may be, nor its state, which after an error says that an evaluation is due.
fn is_of_checkpoint(name: &str) -> bool {
    let of = name.strip_prefix("out/checkpoint-").and_then(|rest| rest.split_once('/'));
    let differs = ["duel.toml", "duel_state.json", "trainer_state.json"];
    of.is_some_and(|(step, file)| step.parse::<u64>().is_ok() && !differs.contains(&file))
}

fn same(found: &Files, wanted: &Files, after: &str) {
    let names = |of: &Files| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(wanted), "after {after}");
    // A checkpoint that was saved because what an evaluation said could not be written says that it is due, and stays.
    let is_due = |name: &str| {
        let (of, file) = name.rsplit_once('/').unwrap_or_default();
        let state = found.get(&format!("{of}/duel_state.json")).filter(|_| file.ends_with("_state.json"));
        state.is_some_and(|state| String::from_utf8_lossy(state).contains("\"unevaluated\":true"))
    };
    // A file that only grows keeps what a crash has torn, which no reader takes for a record.
    let only_grew = |name: &str, bytes: &[u8]| {
        let (more, n) = (&found[name], bytes.len());
        let begins = more.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        let ends = more.iter().rev().zip(bytes.iter().rev()).take_while(|(a, b)| a == b).count();
        name.ends_with(".logps") && more.len() > n && begins + ends >= n
    };
    for (name, bytes) in wanted {
        let is_same = found[name] == *bytes || is_due(name) || only_grew(name, bytes);
        assert!(is_same, "{name} is another after {after}");
    }
}

/// `few` of the numbers from 1 to `n`, another choice for each kind; all of them where `DUEL_FAULTS` is `all`.
fn points(n: usize, few: usize, kind: usize) -> Vec<usize> {
    if std::env::var("DUEL_FAULTS").is_ok_and(|said| said == "all") {
        return (1..=n).collect();
    }
    let share = n as f64 / few as f64;
    (0..few).map(|i| 1 + (share * (i as f64 + (kind as f64 + 0.5) / KINDS.len() as f64)) as usize).collect()
}

/// Trains as `run` says, in relative folders; judges rows, samples, and evaluates; and has the disk fail in each.
pub fn fail_everywhere(temp: &Temp, run: &Run) {
    let path = |name: &str| temp.path(name).display().to_string();
    let train = |folder: &Path| {
        let begun = fs::read_dir(folder.join("out")).into_iter().flatten().flatten();
        let step = |name: String| name.strip_prefix("checkpoint-").is_some_and(|n| n.parse::<u64>().is_ok());
        let any = begun.map(|entry| entry.file_name().into_string().unwrap()).any(step);
        let again = folder.join("out").exists();
        match any {
            true => run.clone().resume(),
            false => run.clone().set("overwrite-output-dir", again),
        }
        .args()
    };
    let plain = |args: &[&str]| -> Args<'static> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        Box::new(move |_| args.clone())
    };
    let (model, rows) = (path("model"), path("eval.jsonl"));
    let cpu = ["--device=cpu", "--threads=1"];
    let of = |command: &'static str| [command, "--model", &model, "--dataset", &rows, cpu[0], cpu[1]];
    let sample = [&of("sample")[..], &["--max-new-tokens=3", "--output=out"]].concat();
    let label = ["label", "--judge=truth", "--dataset", &rows, "--output=out"];
    let jobs = [
        Job { name: "train", args: Box::new(train), few: 2 },
        Job { name: "label", args: plain(&label), few: 1 },
        Job { name: "sample", args: plain(&sample), few: 1 },
        Job { name: "eval", args: plain(&[&of("eval")[..], &["--output=out"]].concat()), few: 1 },
    ];
    // All checkpoints that a run has at some time.
    let unlimited = temp.path("unlimited");
    fs::create_dir_all(&unlimited).unwrap();
    let keeps = run.clone().set("save-total-limit", 99);
    let all = Job { name: "unlimited", args: Box::new(|_| keeps.args()), few: 0 };
    all.ends_well(&unlimited, "nothing");
    let checkpoints = files(&unlimited);

    let mut table =
        vec!["| command | operations | fault | points | one error | gone | nothing lost |".to_owned()];
    for job in &jobs {
        let whole = temp.path(&format!("whole-{}", job.name));
        fs::create_dir_all(&whole).unwrap();
        let log = temp.path(&format!("{}.log", job.name));
        let ended = Ended::of(job.command(&whole).env("DUEL_DISK_LOG", &log).output().unwrap());
        assert_eq!(ended.code, Some(0), "{}:\n{}", job.name, ended.stderr);
        let n = fs::read_to_string(&log).unwrap().lines().count();
        let whole = files(&whole);
        for (i, kind) in KINDS.iter().enumerate() {
            let tally = Tally::default();
            let all = points(n, job.few, i);
            let (one, other) = all.split_at(all.len() / 2);
            let try_all = |points: &[usize]| {
                for k in points {
                    let folder: PathBuf = temp.path(&format!("{}-{kind}-{k}", job.name));
                    job.fail(&folder, &format!("{kind}@{k}"), &whole, &checkpoints, &tally);
                }
            };
            thread::scope(|s| {
                s.spawn(|| try_all(one));
                try_all(other);
            });
            let [tried, errors, gone] =
                [&tally.points, &tally.errors, &tally.gone].map(|n| n.load(Ordering::Relaxed));
            let name = job.name;
            table.push(format!("| {name} | {n} | {kind} | {tried} | {errors} | {gone} | {tried}/{tried} |"));
        }
    }
    // Not println: the test harness would keep that to itself.
    if std::env::var_os("DUEL_FAULTS").is_some() {
        drop(writeln!(std::io::stderr(), "{}", table.join("\n")));
    }
}
