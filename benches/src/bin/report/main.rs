//! Collects what criterion wrote into one table, and into a JSON file under `benches/results`.
//!
//! `report CRITERION_DIR SINCE full|quick|filtered`: only estimates from `SINCE` on (seconds after 1970) count, and a
//! filtered run, which lacks rows, leaves no file.

mod criterion;
mod machine;
mod rows;
mod table;

use machine::Machine;
use rows::Rows;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// How much was measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Full,
    Quick,
    Filtered,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let usage = || "report CRITERION_DIR SINCE full|quick|filtered".to_owned();
    let [dir, since, extent] = args else { return Err(usage()) };
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(since.parse().map_err(|_| usage())?);
    let extent = match extent.as_str() {
        "full" => Extent::Full,
        "quick" => Extent::Quick,
        "filtered" => Extent::Filtered,
        _ => return Err(usage()),
    };
    let machine = Machine::this()?;
    let rows = Rows::new(&criterion::read(Path::new(dir), since)?, &machine)?;
    println!("\n{}", table::markdown(&rows, &machine));
    if extent == Extent::Filtered {
        return Ok(());
    }
    if !rows.missing.is_empty() {
        return Err(format!("criterion left no estimates of: {}", rows.missing.join("; ")));
    }
    let path = results_file(&machine, extent);
    let text = serde_json::to_string_pretty(&rows.json(&machine, extent == Extent::Quick));
    let written = text.map_err(|e| e.to_string()).and_then(|text| write(&path, &(text + "\n")));
    written.map_err(|e| format!("{}: {e}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text)).map_err(|e| e.to_string())
}

fn results_file(machine: &Machine, extent: Extent) -> PathBuf {
    let quick = if extent == Extent::Quick { "-quick" } else { "" };
    let name = format!("{}-{}{quick}.json", machine.date, machine.slug());
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(name)
}
