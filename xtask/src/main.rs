//! Runs cargo and the `duel` binary with the right flags: no trainer code lives here.

mod bench;
mod cpu;
mod dist;
mod embed;
mod kernels;
mod left;
mod mpi;
mod pack;
mod soak;
mod tiny;
mod wheel;
mod zip;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const USAGE: &str = "cargo xtask COMMAND [ARGUMENTS]

  train [...]     duel train: without arguments, the built-in experiment
  inspect [...]   duel inspect: rows as a run sees them
  audit [...]     duel audit: what is wrong in files of rows, before a run
  plan [...]      duel plan: what a run would take
  eval [...]      duel eval: a preference file under a policy or a reward model
  generate [...]  duel generate
  chat [...]      duel chat: a conversation with a model
  sample [...]    duel sample
  label [...]     duel label: judges responses
  table [...]     duel table: the methods side by side on the built-in experiment's data
  frontier [...]  duel frontier: reward against KL of every method
  tournament [...]  duel tournament: policies against each other
  cycle [...]     duel cycle: preferences without an order, reward models and self-play
  theorem [...]   duel theorem: what the paper proves, on a language small enough to count
  merge [...]     duel merge: an adapter and its model as one model
  export [...]    duel export: a model as a file of llama.cpp
  import RECIPE   duel import: a recipe of another trainer as a configuration
  report RUN...   duel report: what runs and studies left, on one page
  losses          duel losses: the table of them
  completions     duel completions, and duel man: for shells and manuals
  bench [--quick] [--isa NAME]... [FILTER]
                  the criterion benchmarks of the CPU, in one table for each instruction set that the machine has, or
                  of those that are named (avx512, avx2, baseline)
  bench --page    rewrites the part on GPUs of benches/SPEED.md from the newest results, and docs/scaling.md's tables
  kernels [...]   compile all CUDA kernels, or test them under a sanitizer; `kernels --help` tells more
  cpu [...]       the tests of the CPU's kernels and threads under a sanitizer; `cpu --help` tells more
  dist [...]      what is installed without compiling: an archive with the program, and a wheel; `dist --help` tells more
  embed           every library crate, as it would be published, in a program of its own outside the workspace
  gpu-pack [...]  one folder with which a machine with a GPU checks and measures everything; `gpu-pack --help` too
  mpi [--quick]   ranks as processes under mpirun: exchanges, and one that fails, hangs or is killed; runs of 1 to 4
                  processes, and of which one is killed or has a disk that fails, end in the same bytes
  faults          a disk that fails at every operation of a run and of other commands, four ways; prints a table
  soak [...]      runs that go on for an hour, one left alone and one disturbed: memory stays flat, the bytes are the same;
                  `soak --help` tells more
  fuzz [...]      damaged files of every kind through every loader; `fuzz --help` tells more
  check           all that CI checks: formatting, clippy, the documentation, the crates that duel builds on, the scripts'
                  tests, half a minute of fuzzing, every test";

fn command(args: &[&str], rest: &[String]) -> Command {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo.args(args).args(rest);
    // What cargo says of this package to it: build scripts that ask for such a thing would run again, here and by hand
    // in turn, and all that is built on them.
    let said =
        |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|of| name.starts_with(of));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(said) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn cargo(args: &[&str], rest: &[String]) -> Result<(), u8> {
    start(&mut command(args, rest))
}

/// Waits for a command; the error is its exit code.
fn start(command: &mut Command) -> Result<(), u8> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
        Err(e) => {
            eprintln!("error: {} cannot be started: {e}", command.get_program().display());
            Err(1)
        }
    }
}

/// Starts the fuzzer, which leaves what it finds where cargo builds. In the profile of tests: overflow is checked
/// there. It is built for one of its own tests, with the workspace's: of crates that the other tests are made of too.
fn fuzz(rest: &[String]) -> Result<(), u8> {
    cargo(&["test", "--workspace", "--test", "kept", "--no-run"], &[])?;
    start(
        Command::new(target_dir().join("debug").join(format!("duel-fuzz{}", std::env::consts::EXE_SUFFIX)))
            .arg("--out")
            .arg(target_dir().join("fuzz"))
            .args(rest),
    )
}

/// The test of disks that fail, at all points of which CI tries a few.
fn faults() -> Result<(), u8> {
    let test = ["test", "--workspace", "--test", "invariants", "a_disk_that_fails"];
    start(command(&test, &[]).env("DUEL_FAULTS", "all"))
}

/// All that CI checks.
fn check() -> Result<(), u8> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    start(command(&["doc", "--workspace", "--no-deps"], &[]).env("RUSTDOCFLAGS", "-D warnings"))?;
    deny()?;
    match Command::new("python3").arg("--version").output() {
        Ok(_) => scripts()?,
        Err(_) => eprintln!(
            "SKIPPED: the tests of the scripts in benches/ and those beside transformers, there is no python3"
        ),
    }
    // With a seed of its own each time, which it prints.
    fuzz(&["--seconds".into(), "30".into()])?;
    cargo(&["test", "--workspace"], &[])
}

/// What `deny.toml` asks of the crates in Cargo.lock: their licences, versions and sources, and known faults where the
/// list of them can be fetched.
fn deny() -> Result<(), u8> {
    let succeeds = |args: &[&str]| command(args, &[]).output().is_ok_and(|output| output.status.success());
    if !succeeds(&["deny", "--version"]) {
        eprintln!(
            "SKIPPED: licences, versions and sources of the crates; `cargo install cargo-deny` brings what checks them"
        );
        return Ok(());
    }
    cargo(&["deny", "check", "bans", "licenses", "sources"], &[])?;
    if !succeeds(&["deny", "fetch", "db"]) {
        eprintln!("SKIPPED: known faults of the crates; `cargo deny fetch db` cannot get their list");
        return Ok(());
    }
    cargo(&["deny", "check", "--disable-fetch", "advisories"], &[])
}

/// Tests of the benchmarks' scripts, and of families beside transformers where that is.
fn scripts() -> Result<(), u8> {
    for folder in ["benches/gpu", "benches/peers", "tests/transformers"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        start(
            Command::new("python3").args(["-m", "unittest", "discover", "-p", "test_*.py", "-s"]).arg(folder),
        )?;
    }
    Ok(())
}

/// Sends a signal by its name; a process that is over by now is found over by who waits for it.
fn signal(process: u32, name: &str) {
    let (name, process) = (format!("-{name}"), process.to_string());
    drop(Command::new("kill").args([name, process]).stderr(Stdio::null()).status());
}

/// Where cargo builds.
fn target_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"))
}

/// Says what is wrong; the exit code.
fn report(message: String) -> u8 {
    eprintln!("{message}");
    1
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let duel = |name: &str| {
        // Built on its own, to show what may take minutes; `run` is quiet, because it would repeat all arguments.
        cargo(&["build", "--release", "--package", "duel"], &[])?;
        let run = ["run", "--quiet", "--release", "--package", "duel", "--", name];
        // In this process's place: Ctrl-C then goes to the trainer alone, and the shell waits until it has saved.
        #[cfg(unix)]
        {
            let failed = std::os::unix::process::CommandExt::exec(&mut command(&run, &rest));
            eprintln!("error: cargo cannot be started: {failed}");
            Err(1)
        }
        #[cfg(not(unix))]
        cargo(&run, &rest)
    };
    let result = match name.as_str() {
        "train" | "eval" | "generate" | "chat" | "sample" | "label" | "table" | "frontier" | "theorem"
        | "tournament" | "cycle" | "merge" | "export" | "import" | "report" | "losses" | "inspect"
        | "audit" | "plan" | "completions" | "man" => duel(&name),
        "bench" => bench::run(&rest),
        "kernels" => kernels::run(&rest).map_err(report),
        "cpu" => cpu::run(&rest).map_err(report),
        "mpi" => mpi::run(&rest),
        "faults" => faults(),
        "soak" => soak::run(&rest),
        "fuzz" => fuzz(&rest),
        "dist" => dist::run(&rest).map_err(report),
        "embed" => embed::run().map_err(report),
        "gpu-pack" => pack::run(&rest).map_err(report),
        "check" => check(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.map_or_else(ExitCode::from, |()| ExitCode::SUCCESS)
}
