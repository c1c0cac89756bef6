//! `cargo xtask cpu`: what is `unsafe` in `duel-cpu`, its tests under a sanitizer of the compiler.

use std::process::Command;

const HELP: &str = "cargo xtask cpu --asan | --race [--quick]

  --asan   memory: under AddressSanitizer, for every instruction set of the machine
  --race   threads: under ThreadSanitizer
  --quick  for the best instruction set alone; of the threads what hands out work

The compiler is the usual one, told that it may do what is not promised yet (RUSTC_BOOTSTRAP); the standard library is
compiled too, from `rustup component add rust-src`, or its locks would not be seen.";

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Instruction sets by what `DUEL_ISA` calls them, the best first.
const SETS: [&str; 3] = ["avx512", "avx2", "baseline"];

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
    let has = |set: &&str| match *set {
        "avx512" => std::is_x86_feature_detected!("avx512f"),
        "avx2" => std::is_x86_feature_detected!("avx2"),
        _ => true,
    };
    let sets: Vec<&str> = SETS.into_iter().filter(has).take(if quick { 1 } else { SETS.len() }).collect();
    match what {
        "--asan" => sets.iter().try_for_each(|set| succeed(tests("address").env("DUEL_ISA", set), set)),
        _ => {
            let mut tests = tests("thread");
            tests.args(["--", "--test-threads=1"]);
            if quick {
                tests.args(["workers::", "sync::"]);
            }
            succeed(&mut tests, "threads")
        }
    }
}

/// The tests of the crate, compiled with a sanitizer into a folder of their own.
fn tests(sanitizer: &str) -> Command {
    let what = ["test", "-Zbuild-std", "--package", "duel-cpu", "--lib", "--target", TARGET];
    let mut cargo = crate::command(&what, &[]);
    cargo.arg("--target-dir").arg(crate::target_dir().join(sanitizer));
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", format!("-Zsanitizer={sanitizer}"));
    cargo
}

fn succeed(cargo: &mut Command, what: &str) -> Result<(), String> {
    println!("{what}");
    match cargo.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what}: {status}")),
        Err(e) => Err(format!("cargo cannot be started: {e}")),
    }
}
