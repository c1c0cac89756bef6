//! How judging fails, and how it is stopped.

use std::fmt;
use std::sync::Arc;

/// The result of every fallible call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Whether an end was asked for (Ctrl-C): judges that wait ask it every few hundredths of a second.
pub type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// Why there is no judgement at all. A response that a judge could not judge is no error: it is
/// [`Opinion::Unjudged`](crate::Opinion::Unjudged).
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// One sentence that says what is wrong, where, and what to do about it.
    Failed(String),
    /// [`Stop`] said so.
    Stopped,
}

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Error::Failed(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Failed(message) => f.write_str(message),
            Error::Stopped => f.write_str("judging was stopped"),
        }
    }
}

impl std::error::Error for Error {}
