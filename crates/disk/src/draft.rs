//! A file that has another name until it is whole.

use crate::file::File;
use crate::operations::{remove_file, rename};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Bytes that are collected before they are written.
const BLOCK: usize = 1 << 20;

/// A file that is being written as `NAME.partial`, by this process alone, and gets its name by [`Draft::keep`]. Without
/// that it is removed when the value goes; one that a crash left is written anew by the next.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    partial: PathBuf,
    /// `None` once it has its name.
    file: Option<BufWriter<File>>,
}

impl Draft {
    /// Begins what will be the file `path`.
    ///
    /// # Errors
    /// It cannot be made; or (`WouldBlock`) another process is writing it.
    pub fn new(path: &Path) -> io::Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let (file, _) = File::lock(&partial)?;
        file.set_len(0)?;
        let file = Some(BufWriter::with_capacity(BLOCK, file));
        Ok(Draft { path: path.to_path_buf(), partial, file })
    }

    /// Gives it its name, once the disk has all of it; what was there of that name is gone. Returns its bytes.
    ///
    /// # Errors
    /// The disk has no room, or fails; what was there of that name is there.
    pub fn keep(mut self) -> io::Result<u64> {
        self.flush()?;
        let mut bytes = 0;
        if let Some(file) = &self.file {
            file.get_ref().sync_all()?;
            bytes = file.get_ref().metadata()?.len();
            rename(&self.partial, &self.path)?;
        }
        self.file = None;
        Ok(bytes)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What waits to be written goes with it; the lock, which keeps others from the name, goes last.
            let (file, _) = file.into_parts();
            drop(remove_file(&self.partial));
            drop(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::ErrorKind;

    #[test]
    fn it_is_there_whole_or_not_at_all_and_of_one_process() {
        let folder = std::env::temp_dir().join(format!("duel-draft-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        fs::write(&path, "old").unwrap();
        fs::write(folder.join("file.partial"), "what a crash left, and longer").unwrap();
        let mut draft = Draft::new(&path).unwrap();
        draft.write_all(b"new").unwrap();
        assert_eq!(Draft::new(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(draft);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let mut draft = Draft::new(&path).unwrap();
        draft.write_all(b"new").unwrap();
        assert_eq!(draft.keep().unwrap(), 3);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
