//! Runs cargo and the `duel` binary with the right flags: no trainer code lives here.

use std::process::{Command, ExitCode};

const USAGE: &str = "cargo xtask COMMAND [ARGUMENTS]

  train [...]     duel train: without arguments, the built-in experiment
  generate [...]  duel generate
  bench [...]     the criterion benchmarks
  check           formatting, clippy and every test, as CI runs them";

fn cargo(args: &[&str], rest: &[String]) -> Result<(), u8> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    match Command::new(cargo).args(args).args(rest).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
        Err(e) => {
            eprintln!("error: cargo cannot be started: {e}");
            Err(1)
        }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let duel = |name: &str| {
        cargo(&["run", "--quiet", "--release", "--package", "duel-train", "--bin", "duel", "--", name], &rest)
    };
    let result = match command.as_str() {
        "train" | "generate" => duel(&command),
        "bench" => cargo(&["bench", "--package", "duel-benches"], &rest),
        "check" => cargo(&["fmt", "--all", "--check"], &[])
            .and_then(|()| cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]))
            .and_then(|()| cargo(&["test", "--workspace"], &[])),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    // Ctrl-C reaches the child too: it saves and explains, nothing is left to say here.
    result.map_or_else(ExitCode::from, |()| ExitCode::SUCCESS)
}
