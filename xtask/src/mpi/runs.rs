//! Runs of `duel train` under `mpirun`: of any number of processes they end in the same bytes, wherever one of them was
//! killed.

use super::children;
use crate::left::{Files, left, same};
use crate::{signal, tiny};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
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
        runs.killed(moments, &files, seconds)?;
        runs.on_failing_disks(moments, &files)
    });
    match &done {
        Ok(()) => drop(fs::remove_dir_all(&folder)),
        Err(_) => eprintln!("what the runs left is in {}", folder.display()),
    }
    done
}

/// Starts a program; where it is rank `OF`, its disk fails as `DISK` says, or notes in that file what it does.
const ITS_DISK: &str = r#"
if [ "$OMPI_COMM_WORLD_RANK" = "$OF" ]; then
    case "$DISK" in
    /*) export DUEL_DISK_LOG="$DISK" ;;
    *) export DUEL_DISK_FAULT="$DISK" ;;
    esac
fi
exec "$@"
"#;

/// What the disk of a rank does: a fault, or a file that gets a line for every operation (`crates/disk/README.md`).
struct Disk<'a> {
    of: usize,
    does: &'a str,
}

/// What a disk does, as in `cargo xtask faults`.
const DISK_FAULTS: [&str; 4] = ["full", "fail", "kill", "torn"];

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

    /// Starts a run in a folder of its own; the disk of one rank may be another than those of the rest.
    fn start(
        &self,
        name: &str,
        processes: usize,
        more: &[&str],
        disk: Option<Disk<'_>>,
    ) -> Result<Child, String> {
        let own = self.folder.join(name);
        fs::create_dir_all(&own).map_err(|e| format!("{}: {e}", own.display()))?;
        let said = fs::File::create(own.join("said.txt")).map_err(|e| format!("{}: {e}", own.display()))?;
        let mut mpirun = super::mpirun(processes, Path::new("sh"));
        if let Some(Disk { of, does }) = disk {
            mpirun.env("OF", of.to_string()).env("DISK", does);
        }
        mpirun.args(["-c", ITS_DISK, "sh"]).arg(&self.program);
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
        match self.end(name, self.start(name, processes, more, None)?)? {
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
            let mut run = self.start(&name, processes, &[], None)?;
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
                let fewer = 1 + below(processes - 1);
                without_checkpoint += usize::from(!self.go_on(&name, fewer, &said)?);
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

    /// Gives a run that failed and said `said` to so many processes, which end it; whether it had a checkpoint.
    fn go_on(&self, name: &str, processes: usize, said: &str) -> Result<bool, String> {
        let entries = fs::read_dir(self.folder.join(name).join("out")).into_iter().flatten().flatten();
        // Not one that was being written or removed.
        let is_checkpoint =
            |name: &str| name.strip_prefix("checkpoint-").is_some_and(|step| step.parse::<u64>().is_ok());
        let has_one = entries.map(|e| e.file_name()).any(|n| is_checkpoint(&n.to_string_lossy()));
        let how = if has_one { "--resume-from-checkpoint" } else { "--overwrite-output-dir" };
        self.good(name, processes, &[how])
            .map_err(|e| format!("{e}\nafter one that failed and said:\n{said}"))?;
        Ok(has_one)
    }

    /// Runs in which the disk of one rank fails, of the first and of another, at so many operations of each: a run ends
    /// with no more than one error, which names the rank, and is gone on with by fewer.
    fn on_failing_disks(&self, points: usize, files: &Files) -> Result<(), String> {
        let processes = MOST - 1;
        for of in [0, processes - 1] {
            let name = format!("disk-{of}");
            let log = self.folder.join(format!("{name}.log")).display().to_string();
            self.end(&name, self.start(&name, processes, &[], Some(Disk { of, does: &log }))?)?;
            let operations = fs::read_to_string(&log).map_err(|e| format!("{log}: {e}"))?.lines().count();
            let (mut errors, mut gone, mut quiet) = (0, 0, 0);
            for i in 0..points {
                let kind = DISK_FAULTS[i % DISK_FAULTS.len()];
                let fault = format!("{kind}@{}", 1 + i * operations / points);
                let name = format!("{name}-{fault}");
                let run = self.start(&name, processes, &[], Some(Disk { of, does: &fault }))?;
                let (good, said) = self.end(&name, run)?;
                let said_once: Vec<&str> = said.lines().filter(|line| line.starts_with("error:")).collect();
                match (good, &said_once[..]) {
                    (true, []) => quiet += 1,
                    // Nobody has to say something of a process that is gone, which mpirun does.
                    (false, []) if ["kill", "torn"].contains(&kind) => gone += 1,
                    (false, [error]) if of == 0 || error.contains(&format!("rank {of}")) => errors += 1,
                    _ => return Err(format!("{name} ends without one error of rank {of}:\n{said}")),
                }
                // Also after a run that needed nothing of what failed, such as an old checkpoint that could not be
                // removed: the next one does.
                self.go_on(&name, 1 + i % (processes - 1), &said)?;
                same(&name, files, &self.files(&name)?)?;
                drop(fs::remove_dir_all(self.folder.join(&name)));
            }
            println!(
                "the disk of rank {of} of {processes} fails at {points} of {operations} operations: {errors} one error, \
                 {gone} gone, {quiet} of no consequence; {points} of {points} end in the same bytes"
            );
        }
        Ok(())
    }
}
