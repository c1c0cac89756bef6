//! `cargo xtask bench`: criterion's benchmarks of the CPU, then the table of what they measured; or the part of
//! benches/SPEED.md that says how fast a GPU is.

use crate::{command, start};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::SystemTime;

const USAGE: &str = "cargo xtask bench [--quick] [--isa NAME]... [FILTER] | --page";

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
struct Request {
    quick: bool,
    /// Instruction sets by the names that `DUEL_ISA` takes; none: all but the baseline that the machine has.
    isas: Vec<String>,
    filter: Option<String>,
}

impl Request {
    /// `None` where the arguments are not of [`USAGE`].
    fn of(args: &[String]) -> Option<Self> {
        let mut request = Request::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => request.quick = true,
                "--isa" => request.isas.push(args.next()?.clone()),
                flag if flag.starts_with('-') => return None,
                _ if request.filter.is_some() => return None,
                _ => request.filter = Some(arg.clone()),
            }
        }
        Some(request)
    }

    fn extent(&self) -> &'static str {
        match (&self.filter, self.quick) {
            (Some(_), _) => "filtered",
            (None, true) => "quick",
            (None, false) => "full",
        }
    }

    /// What criterion is told.
    fn criterion(&self) -> impl Iterator<Item = &str> {
        self.quick.then_some("--quick").into_iter().chain(self.filter.as_deref())
    }
}

/// Runs the benchmarks whose name contains the filter (all without one) on every instruction set that is asked for, and
/// prints and keeps the results.
pub fn run(args: &[String]) -> Result<(), u8> {
    if args == ["--page"] {
        return start(&mut binary("page"));
    }
    let Some(request) = Request::of(args) else {
        eprintln!("{USAGE}");
        return Err(2);
    };
    let isas = instruction_sets(&request.isas)?;
    let dir = criterion_dir();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    for isa in &isas {
        eprintln!("instruction set {isa}");
        let bench = |targets: &[&str], rest: &[&str]| {
            let mut cargo = command(&["bench", "--package", "duel-benches"], &[]);
            cargo.args(targets).arg("--").args(rest);
            start(cargo.env("DUEL_ISA", isa).env("CRITERION_HOME", dir.join(isa)))
        };
        // Every share is one of a ceiling of the same run: no filter keeps those out, and they are never measured
        // quickly.
        bench(&["--bench", "ceiling"], &[])?;
        bench(&["--bench", "verbs", "--bench", "step"], &request.criterion().collect::<Vec<_>>())?;
    }
    let mut report = binary("report");
    start(report.arg(&dir).args([&since.to_string(), request.extent()]).args(&isas))
}

/// A binary of the benchmarks' package.
fn binary(name: &str) -> Command {
    let run = ["run", "--quiet", "--profile", "bench", "--package", "duel-benches", "--bin", name, "--"];
    command(&run, &[])
}

/// Those that are named, or those worth measuring: the report knows what the machine has, and says what is wrong.
pub fn instruction_sets(named: &[String]) -> Result<Vec<String>, u8> {
    let asked = binary("report").arg("--isas").args(named).stderr(Stdio::inherit()).output();
    let output = asked.map_err(|e| crate::report(format!("error: cargo cannot be started: {e}")))?;
    if !output.status.success() {
        return Err(1);
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Where criterion keeps its estimates; told to it and to the report alike, which cargo starts in different folders.
fn criterion_dir() -> PathBuf {
    let dir = crate::target_dir().join("criterion");
    std::path::absolute(&dir).unwrap_or(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_of_the_usage() {
        let of = |line: &str| Request::of(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of(""), Some(Request::default()));
        let request = of("--isa avx2 gemm --quick --isa baseline").unwrap();
        assert_eq!((request.isas.join(" ").as_str(), request.extent()), ("avx2 baseline", "filtered"));
        assert_eq!(request.criterion().collect::<Vec<_>>(), ["--quick", "gemm"]);
        for wrong in ["--isa", "--isas avx2", "gemm rope", "--quick --page"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
