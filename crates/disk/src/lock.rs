//! A file that says who works in a folder.

use crate::file::File;
use crate::operations::remove_file;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A lock that this process has while the value lives. The system lets it go when the process ends, however it does.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Held by being open.
    _file: File,
    sure: bool,
}

impl Lock {
    /// Takes the lock in the file `path`, which is made, and says there who has it: process and machine.
    ///
    /// # Errors
    /// Another process has it (`WouldBlock`, and who that is); or the file cannot be written.
    pub fn take(path: &Path) -> io::Result<Self> {
        let (mut file, sure) = File::lock(path).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => {
                let who = fs::read_to_string(path).unwrap_or_default();
                let who = if who.trim().is_empty() { "another process" } else { who.trim() };
                io::Error::new(ErrorKind::WouldBlock, who.to_owned())
            }
            _ => e,
        })?;
        file.set_len(0)?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "this machine" } else { host.trim() };
        file.write_all(format!("process {} on {host}\n", std::process::id()).as_bytes())?;
        Ok(Lock { path: path.to_path_buf(), _file: file, sure })
    }

    /// Whether the file system has locks, so that no other process can have it too.
    pub fn is_sure(&self) -> bool {
        self.sure
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before it is let go: another's is never removed.
        drop(remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_its_holder_and_what_a_crash_left_is_no_obstacle() {
        let folder = std::env::temp_dir().join(format!("duel-lock-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("lock");
        fs::write(&path, "process 1 on another machine, and it is longer than that of this one\n").unwrap();
        let lock = Lock::take(&path).unwrap();
        assert!(lock.is_sure());
        let refused = Lock::take(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        assert!(refused.to_string().starts_with(&format!("process {} on ", std::process::id())), "{refused}");
        drop(lock);
        assert!(!path.exists());
        drop(Lock::take(&path).unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }
}
