use std::fmt;

/// The result of every fallible call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What a rollout came to grief over.
#[derive(Debug)]
pub enum Error {
    /// A prompt, or what was drawn of it.
    Data(duel_data::Error),
    /// The model that draws.
    Model(duel_model::Error),
    /// The judge.
    Judge(duel_judge::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Data(e) => e.fmt(f),
            Error::Model(e) => e.fmt(f),
            Error::Judge(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

macro_rules! from {
    ($($kind:ident: $error:ty),*) => {$(
        impl From<$error> for Error {
            fn from(e: $error) -> Self {
                Error::$kind(e)
            }
        }
    )*};
}
from!(Data: duel_data::Error, Model: duel_model::Error, Judge: duel_judge::Error);
