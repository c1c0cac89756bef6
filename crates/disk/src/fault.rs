//! What a test does to an operation; nothing in a release build.

/// What is done to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    MakeFolder,
    Open,
    Write,
    Truncate,
    Sync,
    Rename,
    Link,
    RemoveFile,
    RemoveFolder,
}

/// Whether an operation is the last of this process, which has half of it done and then calls [`end`].
///
/// # Errors
/// It is to fail.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn before(_: Operation, _: &std::path::Path) -> std::io::Result<bool> {
    Ok(false)
}

#[cfg(debug_assertions)]
pub(crate) use on_purpose::before;

/// Ends the process as SIGKILL does: nothing is dropped, nothing flushed.
pub(crate) fn end() -> ! {
    std::process::abort()
}

#[cfg(debug_assertions)]
mod on_purpose {
    use super::Operation::{self, Link, MakeFolder, Open, Sync, Write};
    use super::end;
    use std::env;
    use std::fs::File;
    use std::io::{self, Write as _};
    use std::path::Path;
    use std::sync::{Mutex, OnceLock, PoisonError};

    /// Errors of the system: no space left on device, input/output error.
    const ENOSPC: i32 = 28;
    const EIO: i32 = 5;

    /// What the environment asks for.
    struct Asked {
        fault: Option<(String, u64)>,
        /// The file of operations, and how many there were.
        log: Mutex<(Option<File>, u64)>,
    }

    fn asked() -> &'static Asked {
        static ASKED: OnceLock<Asked> = OnceLock::new();
        ASKED.get_or_init(|| {
            let fault = env::var("DUEL_DISK_FAULT").ok().map(|said| {
                let parts =
                    said.split_once('@').and_then(|(kind, at)| Some((kind.to_owned(), at.parse().ok()?)));
                parts.unwrap_or_else(|| panic!("DUEL_DISK_FAULT is KIND@K, not {said}"))
            });
            let log = env::var_os("DUEL_DISK_LOG").map(|path| {
                let opened = File::options().create(true).append(true).open(&path);
                opened.unwrap_or_else(|e| panic!("DUEL_DISK_LOG: {}: {e}", path.display()))
            });
            Asked { fault, log: Mutex::new((log, 0)) }
        })
    }

    pub(crate) fn before(operation: Operation, path: &Path) -> io::Result<bool> {
        let Asked { fault, log } = asked();
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.1 += 1;
        let number = log.1;
        if let Some(file) = &mut log.0 {
            writeln!(file, "{number} {operation:?} {}", path.display())?;
        }
        let Some((kind, at)) = fault else { return Ok(false) };
        let needs_room = matches!(operation, MakeFolder | Open | Write | Sync | Link);
        match kind.as_str() {
            "full" if number >= *at && needs_room => Err(io::Error::from_raw_os_error(ENOSPC)),
            "fail" if number == *at => Err(io::Error::from_raw_os_error(EIO)),
            "kill" if number == *at => end(),
            "torn" => Ok(number == *at),
            "full" | "fail" | "kill" => Ok(false),
            _ => panic!("DUEL_DISK_FAULT knows full, fail, kill and torn, not {kind}"),
        }
    }
}
