//! Inputs that once failed: `kept/KIND/NAME` holds the damaged files, the others are those of the kind's first seed.

use duel_fuzz::{KINDS, Source};
use duel_tests::TempDir;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn no_kept_input_makes_a_loader_panic() {
    let dir = TempDir::new().unwrap();
    let mut panicked = Vec::new();
    for kept in folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kept")) {
        let name = kept.file_name().unwrap();
        let kind = KINDS.iter().find(|kind| name == kind.name);
        let source = Source::new(kind.unwrap_or_else(|| panic!("{}: there is no such kind", kept.display())));
        for input in folders(&kept) {
            let mut files = source.seeds()[0].clone();
            files.extend(duel_fuzz::read(&input).unwrap());
            duel_fuzz::write(dir.path(), &files).unwrap();
            if catch_unwind(AssertUnwindSafe(|| (source.kind.load)(dir.path()))).is_err() {
                panicked.push(input);
            }
        }
    }
    assert!(panicked.is_empty(), "these make a loader panic: {panicked:#?}");
}
