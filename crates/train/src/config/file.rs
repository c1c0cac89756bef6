//! The configuration in a file: TOML, read key by key so that a mistake is named by its key.

use super::table::{Config, KEYS, Key, Options};
use super::unsupported::check_supported;
use super::values::nearest;
use crate::Error;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

impl Options {
    /// What is said, by key.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub(super) fn table(&self) -> Result<toml::Table, Error> {
        toml::Table::try_from(self)
            .map_err(|e| Error::new(format!("the configuration cannot be written as TOML: {e}")))
    }

    /// Reads a TOML file. Keys may be written in snake or kebab case; paths are relative to the working directory.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or has an unknown, doubled or unsupported key or a wrong value; the
    /// message names file and key.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::new(format!("cannot read the configuration {}: {e}", path.display())))?;
        Self::parse(&text).map_err(|e| Error::new(format!("{}: {e}", path.display())))
    }

    /// Reads a file that [`Config::to_toml`] wrote, which has every key.
    ///
    /// # Errors
    /// As [`Options::read`]; or a key is missing, because the file is cut off or of another version.
    pub fn read_whole(path: &Path) -> Result<Self, Error> {
        let options = Self::read(path)?;
        let given = options.table()?;
        match KEYS.iter().find(|key| !given.contains_key(key.name)) {
            None => Ok(options),
            Some(Key { name, .. }) => Err(Error::new(format!(
                "{}: `{name}` is missing: the file is damaged, or of another version of duel; use an earlier checkpoint",
                path.display()
            ))),
        }
    }

    /// Parses the text of a TOML file; the errors of [`Options::read`] without the file's name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(0, |at| text[..at.start.min(text.len())].matches('\n').count()) + 1;
            Error::new(format!("line {line}: {}", e.message().trim().replace('\n', ", ")))
        })?;
        let mut seen = BTreeSet::new();
        let mut options = Self::default();
        for (written, value) in table {
            let key = written.replace('-', "_");
            check_supported(&key)?;
            if duel_judge::KEYS.iter().any(|known| known.name == key) {
                let text = match value {
                    toml::Value::String(text) => text,
                    value => value.to_string(),
                };
                let one = duel_judge::Settings::new([(key, text)]).map_err(|e| Error::new(e.to_string()))?;
                options = options.or(Self { judging: one, ..Self::default() });
                continue;
            }
            if !KEYS.iter().any(|known| known.name == key) {
                let near = nearest(&key, KEYS.iter().map(|known| known.name));
                return Err(Error::new(format!("unknown key `{written}`; did you mean `{near}`?")));
            }
            if !seen.insert(key.clone()) {
                return Err(Error::new(format!(
                    "`{key}` is given twice, in snake and in kebab case; remove one"
                )));
            }
            let one = toml::Table::from_iter([(key, value)]);
            let parsed =
                Self::deserialize(one).map_err(|e| Error::new(format!("`{written}`: {}", e.message())))?;
            options = options.or(parsed);
        }
        Ok(options)
    }
}

impl Config {
    /// The configuration as TOML, one line per key in the order of the help text, and those of the judge that are said.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, Error> {
        let failed = |e| Error::new(format!("the configuration cannot be written as TOML: {e}"));
        let of_judge: BTreeMap<_, _> = self.judging.said().collect();
        Ok(toml::to_string(&self.said()).map_err(failed)? + &toml::to_string(&of_judge).map_err(failed)?)
    }
}
