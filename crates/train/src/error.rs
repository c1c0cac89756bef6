use std::fmt;

/// Something the user must put right: one sentence saying what is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

macro_rules! from {
    ($($t:ty),*) => {$(
        impl From<$t> for Error {
            fn from(e: $t) -> Self {
                Error::new(e.to_string())
            }
        }
    )*};
}
from!(duel_backend::Error, duel_data::Error, duel_judge::Error, duel_model::Error, duel_rollout::Error);

impl From<Error> for duel_judge::Error {
    fn from(e: Error) -> Self {
        duel_judge::Error::Failed(e.0)
    }
}
