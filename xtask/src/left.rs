//! What runs of `duel train` left, to be compared byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that say how long things took, or where: all others are the same.
const OTHERS: [&str; 4] = ["all_results.json", "train_results.json", "trainer_state.json", "duel.toml"];

/// Bytes by the names of files, below the output folder.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What a run left in its output folder, but for times and places.
///
/// # Errors
/// It cannot be read.
pub fn left(out: &Path) -> Result<Files, String> {
    let (mut open, mut files) = (vec![out.to_owned()], Files::new());
    while let Some(folder) = open.pop() {
        let failed = |e| format!("{}: {e}", folder.display());
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                open.push(path);
            } else if !OTHERS.iter().any(|other| path.ends_with(other)) {
                let bytes = fs::read(&path).map_err(failed)?;
                files.insert(path.strip_prefix(out).unwrap_or(&path).into(), bytes);
            }
        }
    }
    Ok(files)
}

/// # Errors
/// The run `name` left something else.
pub fn same(name: &str, expected: &Files, got: &Files) -> Result<(), String> {
    let names = expected.keys().chain(got.keys());
    match names.into_iter().find(|file| expected.get(*file) != got.get(*file)) {
        Some(file) => Err(format!("{name}: {} is not as in the run before", file.display())),
        None => Ok(()),
    }
}
