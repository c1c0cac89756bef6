//! Numbers of steps, which may be shares of all.

use super::said::Said;
use super::values::Text;
use crate::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::str::FromStr;

/// A number of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Steps {
    /// So many.
    Of(u64),
    /// So much of all, above 0 and below 1.
    Share(f64),
}

impl Steps {
    /// How many these are of a run of `total`, rounded up.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Steps::Of(steps) => steps,
            Steps::Share(share) => (share * total as f64).ceil() as u64,
        }
    }
}

impl From<u64> for Steps {
    fn from(steps: u64) -> Self {
        Steps::Of(steps)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Steps::Of(steps) => steps.fmt(f),
            Steps::Share(share) => share.fmt(f),
        }
    }
}

impl FromStr for Steps {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match (text.parse::<u64>(), text.parse::<f64>()) {
            (Ok(steps), _) => Ok(Steps::Of(steps)),
            (_, Ok(share)) if share > 0.0 && share < 1.0 => Ok(Steps::Share(share)),
            (_, Ok(whole)) if whole >= 0.0 && whole < 2f64.powi(53) && whole.fract() == 0.0 => {
                Ok(Steps::Of(whole as u64))
            }
            _ => Err(Error::new("give a whole number of steps, or a share of all steps below 1")),
        }
    }
}

impl Text for Steps {}

impl Serialize for Steps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Steps::Of(steps) => steps.serialize(serializer),
            Steps::Share(share) => share.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Said::from(&toml::Value::deserialize(deserializer)?).text().parse().map_err(D::Error::custom)
    }
}
