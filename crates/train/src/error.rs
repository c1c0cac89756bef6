use std::fmt;

/// Something the user must put right: one sentence saying what is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    /// Whether it is a judge's: what was trained before is as it was.
    of_judge: bool,
}

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Error { message: message.into(), of_judge: false }
    }

    /// One that another rank had.
    pub(crate) fn told(message: String, of_judge: bool) -> Self {
        Error { message, of_judge }
    }

    /// The same, saying whose it is.
    pub(crate) fn of_rank(self, rank: usize) -> Self {
        Error { message: format!("rank {rank}: {}", self.message), ..self }
    }

    /// Whether it is of a judge, and not of what is trained.
    pub fn is_of_judge(&self) -> bool {
        self.of_judge
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
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
from!(
    duel_backend::Error,
    duel_comm::Error,
    duel_data::Error,
    duel_hub::Error,
    duel_model::Error,
    duel_plot::Error,
    duel_rollout::Error
);

impl From<duel_judge::Error> for Error {
    fn from(e: duel_judge::Error) -> Self {
        Error { message: e.to_string(), of_judge: true }
    }
}

impl From<Error> for duel_judge::Error {
    fn from(e: Error) -> Self {
        duel_judge::Error::Failed(e.message)
    }
}
