//! Inputs that once failed: `kept/KIND/NAME` holds the damaged files, the others are those of the kind's first seed.

use duel_tests::TempDir;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Each in a process of its own: what cannot be caught is then known by its input, too.
#[test]
fn every_kept_input_is_answered() {
    let out = TempDir::new().unwrap();
    let kinds = folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kept"));
    let mut failed = Vec::new();
    for input in kinds.iter().flat_map(|kind| folders(kind)) {
        let mut fuzz = Command::new(env!("CARGO_BIN_EXE_duel-fuzz"));
        let done = fuzz.arg("--input").arg(&input).arg("--out").arg(out.path()).output().unwrap();
        if !done.status.success() {
            let words = String::from_utf8_lossy(&done.stderr);
            let words: Vec<&str> = words.lines().filter(|line| !line.is_empty()).take(2).collect();
            failed.push(format!("{}: {}: {}", input.display(), done.status, words.join(" ")));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
