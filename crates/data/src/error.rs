//! The one error type of the crate.

use crate::Report;
use std::fmt;
use std::path::{Path, PathBuf};

/// The result of every fallible call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as one sentence that says where and what to do about it.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// A file or folder as a whole cannot be used.
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// One row of the data cannot be used.
    Row {
        /// The file, or `None` for rows that came from memory.
        file: Option<PathBuf>,
        /// The row from 1: the line of a `.jsonl`, the element of a `.json` array.
        row: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The tokenizer or its chat template refused a text.
    Tokenizer(String),
    /// The rows together are not what is asked of them.
    Data(String),
    /// Not one row was left to train on.
    Empty {
        /// The file, or `None` for rows that came from memory.
        file: Option<PathBuf>,
        /// Where the rows went.
        report: Box<Report>,
    },
}

impl Error {
    pub(crate) fn file(path: &Path, message: impl fmt::Display) -> Self {
        Error::File { path: path.to_owned(), message: message.to_string() }
    }

    pub(crate) fn row(file: Option<&Path>, row: usize, message: impl fmt::Display) -> Self {
        Error::Row { file: file.map(Path::to_owned), row, message: message.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Error::Row { file: Some(path), .. } | Error::Empty { file: Some(path), .. } = self {
            write!(f, "{}: ", path.display())?;
        }
        match self {
            Error::File { path, message } => write!(f, "{}: {message}", path.display()),
            Error::Row { row, message, .. } => write!(f, "row {row}: {message}"),
            Error::Tokenizer(message) | Error::Data(message) => f.write_str(message),
            Error::Empty { report, .. } if report.rows == 0 => f.write_str("there are no rows to train on"),
            Error::Empty { report, .. } => write!(f, "no row is left to train on: {report}"),
        }
    }
}

impl std::error::Error for Error {}
