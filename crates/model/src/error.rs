use std::fmt;
use std::path::{Path, PathBuf};

/// What can be wrong with a model folder, with what a model is asked to write, or with the device that should hold it.
#[derive(Debug)]
pub enum Error {
    /// A file of the model is missing, unreadable or wrong.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do about it.
        what: String,
    },
    /// What decoding was asked for cannot be had: one sentence.
    Decoding(String),
    /// The device refused.
    Device(duel_backend::Error),
}

/// Result of loading, saving, allocating or asking a model.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error about `path`.
    pub fn file(path: &Path, what: impl fmt::Display) -> Self {
        Error::File { path: path.to_path_buf(), what: what.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { path, what } => write!(f, "{}: {what}", path.display()),
            Error::Decoding(what) => f.write_str(what),
            Error::Device(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<duel_backend::Error> for Error {
    fn from(e: duel_backend::Error) -> Self {
        Error::Device(e)
    }
}
