use std::fmt;
use std::path::{Path, PathBuf};

/// Why there is no file.
#[derive(Debug)]
pub enum Error {
    /// A file or folder cannot be used, or llama.cpp has nothing for what it holds.
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do about it.
        what: String,
    },
    /// The model cannot be read.
    Model(duel_model::Error),
    /// The tokenizer cannot be read.
    Tokenizer(duel_data::Error),
}

/// Result of an export.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(path: &Path, what: impl fmt::Display) -> Self {
        Error::File { path: path.to_path_buf(), what: what.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { path, what } => write!(f, "{}: {what}", path.display()),
            Error::Model(e) => e.fmt(f),
            Error::Tokenizer(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<duel_model::Error> for Error {
    fn from(e: duel_model::Error) -> Self {
        Error::Model(e)
    }
}

impl From<duel_data::Error> for Error {
    fn from(e: duel_data::Error) -> Self {
        Error::Tokenizer(e)
    }
}
