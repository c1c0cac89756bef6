//! An open file that is written to.

use crate::fault;
use crate::fault::Operation::{Open, Sync, Truncate, Write as Writing};
use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file as `std::fs` has it.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    file: fs::File,
}

impl File {
    fn open(path: &Path, options: &OpenOptions) -> io::Result<Self> {
        let last = fault::before(Open, path)?;
        let opened = options.open(path);
        if last {
            fault::end()
        }
        Ok(File { path: path.to_path_buf(), file: opened? })
    }

    /// A new file, or an old one without what it held.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().create(true).truncate(true).write(true))
    }

    /// A file that is not there yet, to write and to read.
    ///
    /// # Errors
    /// It is there, or cannot be made.
    pub fn create_new(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().create_new(true).read(true).write(true))
    }

    /// A new file or an old one as it is, to write and to read.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn change(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().create(true).truncate(false).read(true).write(true))
    }

    /// A new file or an old one, to write at its end, wherever that is by then.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn append(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().create(true).append(true))
    }

    /// [`File::change`], locked for this process; and whether it is sure, since not all file systems have locks.
    ///
    /// # Errors
    /// It cannot be opened; or (`WouldBlock`) another process has locked it.
    pub(crate) fn lock(path: &Path) -> io::Result<(Self, bool)> {
        loop {
            let file = Self::change(path)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(ErrorKind::WouldBlock, "another process is writing it"));
                }
                // Who had it removed it or gave it another name with the lock, between the two.
                Ok(()) if !file.has_its_name() => {}
                Ok(()) => return Ok((file, true)),
                Err(TryLockError::Error(_)) => return Ok((file, false)),
            }
        }
    }

    /// Cuts it off, or lengthens it by zeros.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_len(&self, bytes: u64) -> io::Result<()> {
        let last = fault::before(Truncate, &self.path)?;
        let done = self.file.set_len(bytes);
        if last {
            fault::end()
        }
        done
    }

    /// Waits until the disk has it.
    ///
    /// # Errors
    /// It did not reach the disk.
    pub fn sync_all(&self) -> io::Result<()> {
        fault::before(Sync, &self.path)?;
        self.file.sync_all()
    }

    /// Locks it for this process, unless another one has.
    ///
    /// # Errors
    /// Another one has, or the file system has no locks.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        self.file.try_lock()
    }

    /// Whether its name still leads to it.
    fn has_its_name(&self) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let place = |at: fs::Metadata| (at.dev(), at.ino());
            let own = self.file.metadata().map(place);
            own.is_ok_and(|own| fs::metadata(&self.path).is_ok_and(|there| place(there) == own))
        }
        #[cfg(not(unix))]
        self.path.exists()
    }

    /// Bytes, times and rights.
    ///
    /// # Errors
    /// The disk's.
    pub fn metadata(&self) -> io::Result<fs::Metadata> {
        self.file.metadata()
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if fault::before(Writing, &self.path)? {
            drop(self.file.write(&bytes[..bytes.len() / 2]));
            fault::end()
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Read for &File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(bytes)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
