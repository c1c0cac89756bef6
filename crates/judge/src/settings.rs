//! The settings of judges: one table, from which flags, keys of files and errors come.

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A setting.
#[derive(Debug)]
pub struct Key {
    /// Its name, as in a file: `judge_timeout`.
    pub name: &'static str,
    /// What its value is: `SECONDS`, or the words that it may be.
    pub value: &'static str,
    /// One line of help, with the default.
    pub help: &'static str,
    /// The judges that it has an effect on.
    pub of: &'static [&'static str],
}

/// Every setting.
pub const KEYS: &[Key] = &[
    key(
        "judge_scale",
        "log_odds|probability",
        "what a score is, of a judge that knows the probability that a text is good [default: log_odds]",
        &["lexicon", "truth"],
    ),
    key("judge_timeout", "SECONDS", "how long an answer may take [default: 60]", &["program", "http"]),
    key(
        "judge_concurrency",
        "N",
        "questions that are out at a time [default: 8; of a program 32]",
        &["program", "http"],
    ),
    key("judge_model", "NAME", "the model that the endpoint is to use", &["http"]),
    key(
        "judge_key_env",
        "VARIABLE",
        "the environment variable that holds the endpoint's key [default: no key is sent]",
        &["http"],
    ),
    key(
        "judge_ask",
        "compare|score",
        "whether answers are compared in pairs or scored alone [default: compare]",
        &["http"],
    ),
    key(
        "judge_order",
        "both|random",
        "a pair is shown in both orders, and a disagreement is a tie, or in one that is drawn [default: both]",
        &["http"],
    ),
    key(
        "judge_verdict",
        "line|token",
        "a verdict is a line after reasoning, or the probabilities of a first token [default: line]",
        &["http"],
    ),
    key(
        "judge_rubric",
        "FILE",
        "what is asked, with the places {prompt}, {first} and {second}, or {prompt} and {answer}; and {principle}, if \
         one is to be drawn [default: a rubric of helpfulness]",
        &["http"],
    ),
    key(
        "judge_principles",
        "FILE",
        "principles, one a line, of which one is drawn for each pair or answer [default: seven]",
        &["http"],
    ),
    key("judge_max_score", "N", "scores are 1 to this [default: 10]", &["http"]),
    key("judge_temperature", "T", "the temperature that the endpoint samples at [default: 0]", &["http"]),
    key("judge_max_tokens", "N", "the most tokens of an answer of the endpoint [default: 1024]", &["http"]),
    key(
        "judge_limit_key",
        "max_tokens|max_completion_tokens",
        "how the endpoint calls that limit [default: max_tokens]",
        &["http"],
    ),
    key("judge_seed", "N", "draws orders and principles [default: 0]", &["http"]),
    key("judge_retries", "N", "how often a question is asked again that failed [default: 5]", &["http"]),
    key(
        "judge_backoff",
        "SECONDS",
        "how long the first of these waits; each further one waits twice as long [default: 0.5]",
        &["http"],
    ),
    key("judge_cache", "FILE", "where answers are kept, and not asked for again", &["http"]),
    key("judge_max_requests", "N", "the most requests of a run [default: any number]", &["http"]),
    key(
        "judge_token_budget",
        "N",
        "the most tokens that the endpoint may count in a run [default: any number]",
        &["http"],
    ),
];

const fn key(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    of: &'static [&'static str],
) -> Key {
    Key { name, value, help, of }
}

/// What a score is, of a judge that knows the probability that a text is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// The raw logit: what a reward is.
    LogOdds,
    /// In 0..1.
    Probability,
}

/// What is said of settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// These settings and no other.
    ///
    /// # Errors
    /// There is no setting of such a name, or it is said twice.
    pub fn new<N: AsRef<str>, V: Into<String>>(said: impl IntoIterator<Item = (N, V)>) -> Result<Self> {
        let mut all = Settings::default();
        for (name, value) in said {
            let name = name.as_ref();
            let known = KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
                let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                Error::new(format!("judges have no setting `{name}`; they have {}", names.join(", ")))
            })?;
            if all.0.insert(known.name, value.into()).is_some() {
                return Err(Error::new(format!("`{name}` is said twice; keep one")));
            }
        }
        Ok(all)
    }

    /// Says `value` where nothing is said of the setting.
    pub fn or(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.entry(name).or_insert_with(|| value.into());
        self
    }

    /// With what `other` says where these say nothing.
    pub fn or_all(mut self, other: Self) -> Self {
        other.0.into_iter().for_each(|(name, value)| {
            self.0.entry(name).or_insert(value);
        });
        self
    }

    /// Every setting that is said, with its value.
    pub fn said(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is said of a setting.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// One of the words that the setting's value may be; the first is the default.
    ///
    /// # Errors
    /// It is another.
    pub fn word<'a>(&self, name: &str, words: &[&'a str]) -> Result<&'a str> {
        let Some(said) = self.text(name) else { return Ok(words[0]) };
        let found = words.iter().find(|word| **word == said);
        found
            .copied()
            .ok_or_else(|| Error::new(format!("`{name}` is `{said}`; it is one of {}", words.join(", "))))
    }

    /// A number in a range.
    ///
    /// # Errors
    /// It is none, or outside.
    pub fn number<T>(&self, name: &str, default: T, range: RangeInclusive<T>) -> Result<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(said) = self.text(name) else { return Ok(default) };
        said.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            Error::new(format!(
                "`{name}` is `{said}`; it is a number of {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    /// `judge_scale`.
    ///
    /// # Errors
    /// It is neither of its words.
    pub fn scale(&self) -> Result<Scale> {
        Ok(match self.word("judge_scale", &["log_odds", "probability"])? {
            "probability" => Scale::Probability,
            _ => Scale::LogOdds,
        })
    }

    /// Whether each has an effect on the judge of this name.
    pub(crate) fn fit(&self, judge: &str) -> Result<()> {
        let idle = |key: &&Key| self.0.contains_key(key.name) && !key.of.contains(&judge);
        match KEYS.iter().find(idle) {
            None => Ok(()),
            Some(key) => Err(Error::new(format!(
                "`{}` has no effect on the judge `{judge}`, but on {}; leave it out",
                key.name,
                key.of.join(", ")
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_checked() {
        let error = |said: &[(&str, &str)]| Settings::new(said.iter().copied()).unwrap_err().to_string();
        assert!(
            error(&[("judge_tiemout", "1")])
                .starts_with("judges have no setting `judge_tiemout`; they have judge_scale,")
        );
        assert_eq!(
            error(&[("judge_seed", "1"), ("judge_seed", "2")]),
            "`judge_seed` is said twice; keep one"
        );

        let said = Settings::new([("judge_timeout", "-3"), ("judge_order", "first")]).unwrap();
        let error = said.number("judge_timeout", 1.0, 0.001..=1e6).unwrap_err().to_string();
        assert_eq!(error, "`judge_timeout` is `-3`; it is a number of 0.001 to 1000000");
        let error = said.word("judge_order", &["both", "random"]).unwrap_err().to_string();
        assert_eq!(error, "`judge_order` is `first`; it is one of both, random");
        let error = said.fit("program").unwrap_err().to_string();
        assert_eq!(error, "`judge_order` has no effect on the judge `program`, but on http; leave it out");
        assert_eq!(said.fit("http"), Ok(()));
    }
}
