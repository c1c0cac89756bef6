//! Files that should hold one JSON object.

use crate::error::Error;
use std::path::Path;

/// The error for a file that does not: what its bytes are instead, or why they cannot be read.
pub(crate) fn broken(path: &Path, bytes: &[u8], why: &serde_json::Error) -> Error {
    let what = match (stand_in(bytes), bytes) {
        (Some(what), _) => format!("is {what}, not the file itself; download it again"),
        (None, [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..]) => "is UTF-16; save it as UTF-8".into(),
        (None, [0xEF, 0xBB, 0xBF, ..]) => {
            "starts with a byte-order mark; save it as UTF-8 without one".into()
        }
        (None, []) => "is empty; download or copy it again".into(),
        _ => format!("is not a JSON object: {why}"),
    };
    Error::file(path, what)
}

/// What a download left in the place of a file that starts like this.
pub(crate) fn stand_in(start: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 2] =
        [(b"version https://git-lfs", "a Git LFS pointer"), (b"<", "a web page")];
    let text = start.trim_ascii_start();
    KNOWN.iter().find(|(magic, _)| text.starts_with(magic)).map(|(_, what)| *what)
}
