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
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        match path.is_dir() {
            true => files
                .extend(read(&path)?.into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes))),
            false => files.extend([(name, std::fs::read(path)?)]),
        }
    }
    Ok(files)
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
    files.iter().try_for_each(|(name, bytes)| {
        let path = dir.join(name);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, bytes)
    })
}
