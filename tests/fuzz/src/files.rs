//! A folder's files in memory.

use std::collections::BTreeMap;
use std::io::Result;
use std::path::Path;

/// Bytes of the files of a folder by their names.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of a folder.
///
/// # Errors
/// One of them cannot be read.
pub fn read(dir: &Path) -> Result<Files> {
    let file = |entry: Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?))
    };
    std::fs::read_dir(dir)?.map(file).collect()
}

/// Makes `dir` a folder of these files and nothing else.
///
/// # Errors
/// The disk refuses.
pub fn write(dir: &Path, files: &Files) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    files.iter().try_for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes))
}
