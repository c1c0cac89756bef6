//! The reports of users beside the project: each folder's script says whether the command does what is right.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

const FAULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/faults");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");

/// Reports whose script asks that something be refused which has been built since.
const OUTGROWN: [(&str, &str); 1] = [("p12-yarn-and-dynamic-rope", "both are computed now")];

/// The folders of `dir` with a script.
fn scripts(dir: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let scripts = folders.map(|folder| folder.unwrap().path().join("run.sh"));
    scripts.filter(|script| script.is_file()).collect()
}

/// What the script said, where that is not that all is right.
fn failure(script: &Path) -> Option<String> {
    let mut command = Command::new("sh");
    command.arg(script).env("DUEL", env!("CARGO_BIN_EXE_duel")).env("DATA", DATA);
    command.env("PYTHONDONTWRITEBYTECODE", "1"); // the folders are only read
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    (!output.status.success()).then(|| format!("{}: {}\n{said}", script.display(), output.status))
}

/// What the scripts need and is not here.
fn absent() -> Option<&'static str> {
    let runs = |program: &str| {
        Command::new(program).arg("-c").arg("").stdin(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    [
        (Path::new(FAULTS).is_dir(), "../shared/faults"),
        (Path::new(DATA).is_dir(), "../shared/data"),
        (runs("sh"), "sh"),
        (runs("python3"), "python3"),
    ]
    .into_iter()
    .find_map(|(here, what)| (!here).then_some(what))
}

#[test]
fn what_users_reported_stays_right() {
    if let Some(what) = absent() {
        // Not eprintln: the test harness would keep that to itself.
        drop(writeln!(std::io::stderr(), "SKIPPED: the reports of users are not tried, {what} is not here"));
        return;
    }
    let faults = Path::new(FAULTS);
    let all = [scripts(faults), scripts(&faults.join("passing"))].concat();
    assert!(!all.is_empty(), "{FAULTS} holds no script");
    let outgrown = |script: &PathBuf| {
        OUTGROWN.iter().any(|(name, _)| script.parent().is_some_and(|p| p.ends_with(name)))
    };
    let all: Vec<PathBuf> = all.into_iter().filter(|script| !outgrown(script)).collect();
    let left = Mutex::new(all);
    let next = || left.lock().unwrap().pop();
    let work = || std::iter::from_fn(next).filter_map(|script| failure(&script)).collect::<Vec<_>>();
    let failures = thread::scope(|s| {
        let workers = [s.spawn(work), s.spawn(work)];
        workers.map(|worker| worker.join().unwrap()).concat()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
