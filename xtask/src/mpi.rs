//! `cargo xtask mpi`: what needs an MPI, which CI has not: ranks as processes under `mpirun`.

use crate::{command, start};
use std::process::Command;

/// What has to be there: a program, and what brings it.
const NEEDS: [(&str, &str); 2] =
    [("mpirun", "Debian's openmpi-bin"), ("mpicc", "Debian's libopenmpi-dev; it says what to link")];
/// The variable by which bindgen finds `stddef.h` where libclang came without its own.
const CLANG_ARGS: &str = "BINDGEN_EXTRA_CLANG_ARGS";

/// Builds what needs an MPI, and starts 1 to 4 ranks of it in every scene: one that fails, panics, leaves, is killed or
/// hangs, and more than 2 GiB from each.
pub fn run(rest: &[String]) -> Result<(), u8> {
    for (program, brought_by) in NEEDS {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("SKIPPED: all that needs an MPI: there is no {program} ({brought_by})");
            return Ok(());
        }
    }
    let mut cargo =
        command(&["test", "--package", "duel-comm", "--features", "mpi", "--test", "mpi", "--"], rest);
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
