//! `cargo xtask mpi`: what needs an MPI, which CI has not: ranks as processes under `mpirun`.

mod runs;

use crate::{command, start};
use std::process::Command;

const USAGE: &str = "cargo xtask mpi [--quick]";
/// What has to be there: a program, and what brings it.
const NEEDS: [(&str, &str); 2] =
    [("mpirun", "Debian's openmpi-bin"), ("mpicc", "Debian's libopenmpi-dev; it says what to link")];
/// The variable by which bindgen finds `stddef.h` where libclang came without its own.
const CLANG_ARGS: &str = "BINDGEN_EXTRA_CLANG_ARGS";

/// Builds what needs an MPI, and starts 1 to 4 processes of it: `duel-comm` in every scene (one that fails, panics,
/// leaves, is killed or hangs, and more than 2 GiB from each), then runs of `duel train`, which have to end in the same
/// bytes, killed or not. With `--quick` they are killed at 5 moments in place of 50.
pub fn run(rest: &[String]) -> Result<(), u8> {
    let moments = match rest {
        [] => 50,
        [quick] if quick == "--quick" => 5,
        _ => {
            eprintln!("{USAGE}");
            return Err(2);
        }
    };
    for (program, brought_by) in NEEDS {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("SKIPPED: all that needs an MPI: there is no {program} ({brought_by})");
            return Ok(());
        }
    }
    cargo(&["test", "--package", "duel-comm", "--features", "mpi", "--test", "mpi"])?;
    cargo(&["build", "--package", "duel", "--features", "mpi"])?;
    runs::run(moments).map_err(crate::report)
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
