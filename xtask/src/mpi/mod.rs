//! `cargo xtask mpi`: what needs an MPI, which CI has not: ranks as processes under `mpirun`.

mod runs;

use crate::{command, start};
use std::fs;
use std::path::Path;
use std::process::Command;

const USAGE: &str = "cargo xtask mpi [--quick]";
/// What has to be there: a program, and what brings it.
const NEEDS: [(&str, &str); 2] =
    [("mpirun", "Debian's openmpi-bin"), ("mpicc", "Debian's libopenmpi-dev; it says what to link")];
/// The variable by which bindgen finds `stddef.h` where libclang came without its own.
const CLANG_ARGS: &str = "BINDGEN_EXTRA_CLANG_ARGS";

/// Builds what needs an MPI, and starts 1 to 4 processes of it: `duel-comm` in every scene (one that fails, panics,
/// leaves, is killed or hangs, and more than 2 GiB from each), then runs of `duel train`, which have to end in the same
/// bytes, killed or not, and whatever the disk of one of them does. With `--quick` there are 5 moments of each in place
/// of 50.
pub fn run(rest: &[String]) -> Result<(), u8> {
    let moments = match rest {
        [] => 50,
        [quick] if quick == "--quick" => 5,
        _ => {
            eprintln!("{USAGE}");
            return Err(2);
        }
    };
    if !is_there() {
        return Ok(());
    }
    cargo(&["test", "--package", "duel-comm", "--features", "mpi", "--test", "mpi"])?;
    build()?;
    runs::run(moments).map_err(crate::report)
}

/// Whether what needs an MPI can be built and started; if not, says what is missing.
pub fn is_there() -> bool {
    let missing = NEEDS.iter().find(|(program, _)| Command::new(program).arg("--version").output().is_err());
    if let Some((program, brought_by)) = missing {
        eprintln!("SKIPPED: all that needs an MPI: there is no {program} ({brought_by})");
    }
    missing.is_none()
}

/// Builds a `duel` that knows MPI.
pub fn build() -> Result<(), u8> {
    cargo(&["build", "--package", "duel", "--features", "mpi"])
}

/// What starts so many processes of a program, whose arguments are still to be given, on however few processors.
pub fn mpirun(processes: usize, program: &Path) -> Command {
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n"]);
    mpirun.arg(processes.to_string()).arg(program);
    mpirun
}

/// Processes that a process has started and that are there; one that has ended has no program any more.
pub fn children(of: u32) -> Vec<u32> {
    let said = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let there = |of: &u32| fs::read_link(format!("/proc/{of}/exe")).is_ok();
    said.split_whitespace().filter_map(|number| number.parse().ok()).filter(there).collect()
}

fn cargo(args: &[&str]) -> Result<(), u8> {
    let mut cargo = command(args, &[]);
    if std::env::var_os(CLANG_ARGS).is_none()
        && let Some(folder) = headers()
    {
        cargo.env(CLANG_ARGS, format!("-I{folder}"));
    }
    start(&mut cargo)
}

/// Where the C compiler has headers of its own.
fn headers() -> Option<String> {
    let output = Command::new("cc").arg("-print-file-name=include").output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    folder.starts_with('/').then_some(folder)
}
