//! How a name is not found.

use std::fmt;
use std::path::Path;

/// The result of every fallible call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// One sentence that says what is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    /// Whether what is in the cache may do.
    pub(crate) why: Why,
}

/// Why something is not had from the Hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It did not answer.
    #[cfg(feature = "download")]
    Unreached,
    /// It does not give it, to this token or at all.
    #[cfg(feature = "download")]
    Refused,
    /// Anything else, which stays wrong whatever is in the cache.
    Other,
}

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Error { message: message.into(), why: Why::Other }
    }

    /// That a file or folder of the cache cannot be used.
    pub(crate) fn file(path: &Path, what: impl fmt::Display) -> Self {
        Error::new(format!("{}: {what}", path.display()))
    }

    #[cfg(feature = "download")]
    pub(crate) fn because(why: Why, message: impl Into<String>) -> Self {
        Error { message: message.into(), why }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
