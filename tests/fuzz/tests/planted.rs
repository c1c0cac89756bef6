//! The fuzzer notices what a loader must never do, and goes on after it.
#![cfg(target_os = "linux")] // where the limit on memory holds

use duel_tests::TempDir;
use std::process::Command;

#[test]
fn every_planted_fault_is_noticed() {
    let out = TempDir::new().unwrap();
    // The first four inputs of this seed are the four faults.
    let mut fuzz = Command::new(env!("CARGO_BIN_EXE_duel-fuzz"));
    fuzz.args(["--kind", "planted", "--seed", "4", "--seconds", "15", "--out"]).arg(out.path());
    let done = fuzz.output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(1), "{text}");
    let report = text.split_once("seed 4,").unwrap_or_default().1;
    for fault in ["as planted", "no answer in time", "stack overflow", "out of memory"] {
        let Some((_, after)) = report.split_once(fault) else {
            panic!("`{fault}` was not noticed:\n{text}");
        };
        assert!(after.contains("--input planted:4:"), "{text}");
    }
    let kept = std::fs::read_dir(out.path()).unwrap().count();
    assert_eq!(kept, 4, "one input of each is kept:\n{text}");
}
