//! `cargo xtask bench`: criterion's benchmarks of the CPU, then the table of what they measured; or the part of
//! benches/SPEED.md that says how fast a GPU is.

use crate::{command, start};
use std::path::PathBuf;
use std::time::SystemTime;

const USAGE: &str = "cargo xtask bench [--quick] [FILTER] | --page";

/// Runs the benchmarks whose name contains the filter (all without one), and prints and keeps the results.
pub fn run(args: &[String]) -> Result<(), u8> {
    if args == ["--page"] {
        let page = ["run", "--quiet", "--package", "duel-benches", "--bin", "page"];
        return start(&mut command(&page, &[]));
    }
    let (flags, filters): (Vec<&String>, Vec<&String>) = args.iter().partition(|a| a.starts_with('-'));
    if flags.iter().any(|f| *f != "--quick") || filters.len() > 1 {
        eprintln!("{USAGE}");
        return Err(2);
    }
    let extent = match (filters.is_empty(), flags.is_empty()) {
        (false, _) => "filtered",
        (true, false) => "quick",
        (true, true) => "full",
    };
    let dir = criterion_dir();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let bench = |targets: &[&str], rest: &[String]| {
        let mut cargo = command(&["bench", "--package", "duel-benches"], &[]);
        start(cargo.args(targets).arg("--").args(rest).env("CRITERION_HOME", &dir))
    };
    // Every share is one of a ceiling of the same run: no filter keeps those out, and they are never measured quickly.
    bench(&["--bench", "ceiling"], &[])?;
    bench(&["--bench", "verbs", "--bench", "step"], args)?;
    let report =
        ["run", "--quiet", "--profile", "bench", "--package", "duel-benches", "--bin", "report", "--"];
    start(command(&report, &[]).arg(&dir).args([&since.to_string(), extent]))
}

/// Where criterion keeps its estimates; told to it and to the report alike, which cargo starts in different folders.
fn criterion_dir() -> PathBuf {
    let dir = crate::target_dir().join("criterion");
    std::path::absolute(&dir).unwrap_or(dir)
}
