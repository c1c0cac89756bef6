//! Operations on paths, each as that of `std::fs`.

use crate::draft::Draft;
use crate::fault::Operation::{Link, MakeFolder, RemoveFile, RemoveFolder, Rename, Sync};
use crate::fault::{self, Operation};
use crate::file::File;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Does what is to be done to `path`, unless a test has something else in mind.
fn done<T>(operation: Operation, path: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let last = fault::before(operation, path)?;
    let done = act();
    if last {
        fault::end()
    }
    done
}

/// Makes a folder and those above it; one that is there is no operation.
///
/// # Errors
/// It cannot be made.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    done(MakeFolder, path, || fs::create_dir_all(path))
}

/// Gives a file or a folder another name.
///
/// # Errors
/// It cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    done(Rename, to, || fs::rename(from, to))
}

/// Removes a file, or a link.
///
/// # Errors
/// It cannot be removed.
pub fn remove_file(path: &Path) -> io::Result<()> {
    done(RemoveFile, path, || fs::remove_file(path))
}

/// Removes an empty folder.
///
/// # Errors
/// It cannot be removed.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    done(RemoveFolder, path, || fs::remove_dir(path))
}

/// Removes a folder with all that is in it. Whoever ends meanwhile leaves a part of it.
///
/// # Errors
/// It cannot be removed; a part of it may be gone.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    if !fault::before(RemoveFolder, path)? {
        return fs::remove_dir_all(path);
    }
    let mut entries: Vec<_> = fs::read_dir(path)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in &entries[..entries.len() / 2] {
        drop(if entry.is_dir() { fs::remove_dir_all(entry) } else { fs::remove_file(entry) });
    }
    fault::end()
}

/// Copies a file, which is there whole or not at all.
///
/// # Errors
/// It cannot be copied.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut draft = Draft::new(to)?;
    io::copy(&mut fs::File::open(from)?, &mut draft)?;
    draft.keep().map(drop)
}

/// Makes `at` a symbolic link that says `to`.
///
/// # Errors
/// It cannot be made, or the system has none.
pub fn link(to: &Path, at: &Path) -> io::Result<()> {
    #[cfg(unix)]
    let make = || std::os::unix::fs::symlink(to, at);
    #[cfg(not(unix))]
    let make = || {
        let _ = to;
        Err(io::ErrorKind::Unsupported.into())
    };
    done(Link, at, make)
}

/// Writes a file anew, which a crash may leave in part.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create(path)?.write_all(bytes)
}

/// [`write()`], and waits until the disk has it.
///
/// # Errors
/// It cannot be written.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the disk has a file, or the names in a folder.
///
/// # Errors
/// It did not reach the disk.
pub fn sync(path: &Path) -> io::Result<()> {
    done(Sync, path, || fs::File::open(path)?.sync_all())
}
