//! `cargo xtask cpu`: what is `unsafe` in `duel-cpu`, its tests under a sanitizer of the compiler.

use crate::bench::instruction_sets;
use crate::kernels::succeed;
use std::process::Command;

const HELP: &str = "cargo xtask cpu --asan | --race [--quick]

  --asan   memory: under AddressSanitizer, for every instruction set of the machine
  --race   threads: under ThreadSanitizer
  --quick  for the best instruction set alone; of the threads what hands out work

The compiler is the usual one, told that it may do what is not promised yet (RUSTC_BOOTSTRAP); the standard library is
compiled too, from `rustup component add rust-src`, or its locks would not be seen.";

/// What `cpu` was told to do.
///
/// # Errors
/// A test fails, or a sanitizer has found something.
pub fn run(args: &[String]) -> Result<(), String> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (what, quick) = match args[..] {
        ["--help"] => {
            println!("{HELP}");
            return Ok(());
        }
        [what @ ("--asan" | "--race")] => (what, false),
        [what @ ("--asan" | "--race"), "--quick"] => (what, true),
        _ => return Err(HELP.into()),
    };
    match what {
        // Without the variable it is the best.
        "--asan" if quick => succeed(&mut tests("address")?),
        "--asan" => {
            let sets =
                instruction_sets(&[]).map_err(|_| "the instruction sets of this machine are not known")?;
            sets.iter().try_for_each(|set| {
                println!("instruction set {set}");
                succeed(tests("address")?.env("DUEL_ISA", set))
            })
        }
        _ => {
            let mut tests = tests("thread")?;
            tests.args(["--", "--test-threads=1"]);
            if quick {
                tests.args(["workers::", "sync::"]);
            }
            succeed(&mut tests)
        }
    }
}

/// The tests of the crate, compiled with a sanitizer into a folder of their own.
fn tests(sanitizer: &str) -> Result<Command, String> {
    // With a target that is named, what is compiled for the build itself has no sanitizer.
    let target = host()?;
    let what = ["test", "-Zbuild-std", "--package", "duel-cpu", "--lib", "--target", &target];
    let mut cargo = crate::command(&what, &[]);
    cargo.arg("--target-dir").arg(crate::target_dir().join(sanitizer));
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", format!("-Zsanitizer={sanitizer}"));
    Ok(cargo)
}

/// What the compiler calls this machine.
fn host() -> Result<String, String> {
    let output =
        Command::new("rustc").arg("-vV").output().map_err(|e| format!("rustc cannot be started: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(String::from).ok_or("rustc does not say its host".into())
}
