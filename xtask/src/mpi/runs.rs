//! Runs of `duel train` under `mpirun`: of any number of processes they end in the same bytes, wherever one of them was
//! killed.

use crate::left::{Files, left, same};
use crate::{signal, tiny};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Processes of a run, at most and as many as it has shares.
const MOST: usize = 4;
const ROWS: usize = 640;
/// No run takes so long, and none that ends does after one of its processes was killed.
const LONGEST: Duration = Duration::from_secs(120);
/// How long mpirun is waited for that has no process any more. That of Open MPI 4.1 may wait for ever for one that was
/// killed before it had come to know it ("with PID 0").
const ALONE: Duration = Duration::from_secs(10);

/// Runs with 1 to 4 processes, and so many more of which one process is killed.
///
/// # Errors
/// Something is not as it should be.
pub fn run(moments: usize) -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("duel-mpi-{}", std::process::id()));
    let done = Runs::new(&folder).and_then(|runs| {
        let (files, seconds) = runs.whole()?;
        runs.killed(moments, &files, seconds)
    });
    match &done {
        Ok(()) => drop(fs::remove_dir_all(&folder)),
        Err(_) => eprintln!("what the runs left is in {}", folder.display()),
    }
    done
}

struct Runs {
    folder: PathBuf,
    program: PathBuf,
}

impl Runs {
    fn new(folder: &Path) -> Result<Self, String> {
        let failed = |e| format!("{}: {e}", folder.display());
        fs::create_dir_all(folder.join("model")).map_err(failed)?;
        tiny::write(&folder.join("model"))?;
        fs::write(folder.join("pairs.jsonl"), tiny::pairs(0..ROWS)).map_err(failed)?;
        let program = crate::target_dir().canonicalize().map_err(failed)?.join("debug/duel");
        Ok(Runs { folder: folder.into(), program })
    }

    /// Starts a run in a folder of its own.
    fn start(&self, name: &str, processes: usize, more: &[&str]) -> Result<Child, String> {
        let own = self.folder.join(name);
        fs::create_dir_all(&own).map_err(|e| format!("{}: {e}", own.display()))?;
        let said = fs::File::create(own.join("said.txt")).map_err(|e| format!("{}: {e}", own.display()))?;
        let mut mpirun = Command::new("mpirun");
        mpirun.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n"]);
        mpirun.arg(processes.to_string()).arg(&self.program);
        mpirun.args(["train", "--device", "cpu", "--model", "../model", "--dataset", "../pairs.jsonl"]);
        mpirun.args(["--output-dir", "out", "--cache-dir", "cache", "--gradient-shares", &MOST.to_string()]);
        mpirun.args([
            "--per-device-train-batch-size",
            "8",
            "--num-train-epochs",
            "2",
            "--learning-rate",
            "1e-3",
        ]);
        mpirun.args(["--save-strategy", "steps", "--save-steps", "4", "--logging-steps", "1"]);
        mpirun.args(more).current_dir(own).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        mpirun.spawn().map_err(|e| format!("mpirun: {e}"))
    }

    /// Waits for the end of a run; whether it was a good one, and what was said.
    fn end(&self, name: &str, mut run: Child) -> Result<(bool, String), String> {
        let begun = Instant::now();
        let mut alone = None;
        loop {
            if let Some(status) = run.try_wait().map_err(|e| format!("mpirun: {e}"))? {
                let said = fs::read(self.folder.join(name).join("said.txt")).unwrap_or_default();
                return Ok((status.success(), String::from_utf8_lossy(&said).into_owned()));
            }
            alone = children(run.id()).is_empty().then(|| alone.unwrap_or_else(Instant::now));
            if alone.is_some_and(|since| since.elapsed() > ALONE) {
                println!("{name}: mpirun waits, and no process of it is there; it is killed");
                drop(run.kill());
            }
            if begun.elapsed() > LONGEST {
                drop(run.kill());
                return Err(format!("{name} does not end"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A run to its good end; the seconds that it took.
    fn good(&self, name: &str, processes: usize, more: &[&str]) -> Result<f64, String> {
        let begun = Instant::now();
        match self.end(name, self.start(name, processes, more)?)? {
            (true, _) => Ok(begun.elapsed().as_secs_f64()),
            (false, said) => Err(format!("{name} of {processes} processes failed:\n{said}")),
        }
    }

    fn files(&self, name: &str) -> Result<Files, String> {
        left(&self.folder.join(name).join("out"))
    }

    /// Runs of every number of processes; what they all leave, and the seconds that the longest takes.
    fn whole(&self) -> Result<(Files, f64), String> {
        let mut longest: f64 = 0.0;
        for processes in 1..=MOST {
            let name = format!("whole-{processes}");
            longest = longest.max(self.good(&name, processes, &[])?);
            same(&name, &self.files("whole-1")?, &self.files(&name)?)?;
        }
        let files = self.files("whole-1")?;
        println!("1 to {MOST} processes: the same bytes in {} files, {longest:.1} s at most", files.len());
        Ok((files, longest))
    }

    /// Runs of which a process is killed, at any moment; each is gone on with by fewer.
    fn killed(&self, moments: usize, files: &Files, seconds: f64) -> Result<(), String> {
        let seed =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        println!("killed at {moments} moments of {seconds:.1} s, seed {seed}");
        let mut state = seed | 1;
        let mut below = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize % n
        };
        let (mut killed, mut over, mut without_checkpoint) = (0, 0, 0);
        while killed < moments {
            let name = format!("killed-{}", killed + over);
            let processes = 2 + below(MOST - 1);
            let mut run = self.start(&name, processes, &[])?;
            thread::sleep(Duration::from_secs_f64(seconds * below(1000) as f64 / 1000.0));
            let ranks = children(run.id());
            let is_over = run.try_wait().is_ok_and(|over| over.is_some()) || ranks.is_empty();
            if !is_over {
                signal(ranks[below(ranks.len())], "KILL");
            }
            let (good, said) = self.end(&name, run)?;
            if good {
                over += 1; // it had nothing more to do, or nothing was left to be killed
                if over > 4 * moments {
                    return Err("runs are over before one of their processes can be killed".into());
                }
            } else {
                killed += 1;
                let out = self.folder.join(&name).join("out");
                let entries = fs::read_dir(&out).into_iter().flatten().flatten();
                // Not one that was being written or removed.
                let is_checkpoint = |name: &str| {
                    name.strip_prefix("checkpoint-").is_some_and(|step| step.parse::<u64>().is_ok())
                };
                let goes_on = entries.map(|e| e.file_name()).any(|n| is_checkpoint(&n.to_string_lossy()));
                without_checkpoint += usize::from(!goes_on);
                let how = if goes_on { "--resume-from-checkpoint" } else { "--overwrite-output-dir" };
                self.good(&name, 1 + below(processes - 1), &[how])
                    .map_err(|e| format!("{e}\nafter one of {processes} was killed, which said:\n{said}"))?;
            }
            same(&name, files, &self.files(&name)?)?;
            drop(fs::remove_dir_all(self.folder.join(&name)));
        }
        println!(
            "{killed} of {killed} end in the same bytes on fewer processes ({without_checkpoint} had no checkpoint yet); \
             {over} more were over"
        );
        Ok(())
    }
}

/// Processes that a process has started and that are there; one that has ended has no program any more.
fn children(of: u32) -> Vec<u32> {
    let said = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let there = |of: &u32| fs::read_link(format!("/proc/{of}/exe")).is_ok();
    said.split_whitespace().filter_map(|number| number.parse().ok()).filter(there).collect()
}
