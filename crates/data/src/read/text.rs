//! Plain text: a row a line, with the column `text`.

use super::{Each, Source};
use crate::{Error, Result};
use serde_json::json;
use std::io::BufRead;
use std::path::Path;

/// Hands every line that is not empty to `each`, without its end.
pub(super) fn lines(path: &Path, file: Source<'_>, each: Each<'_>) -> Result<()> {
    for (number, line) in (1..).zip(file.lines()) {
        let line = line.map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => {
                Error::row(Some(path), number, "is not UTF-8; save the file as UTF-8")
            }
            _ => Error::file(path, e),
        })?;
        let line = line.strip_suffix('\r').unwrap_or(&line);
        if !line.is_empty() {
            each(number, json!({"text": line}))?;
        }
    }
    Ok(())
}
