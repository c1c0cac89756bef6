//! The configuration in a file: TOML, read key by key so that a mistake is named by its key, or a recipe in YAML.

use super::foreign::{self, notes_of_value};
use super::said::Said;
use super::table::{Config, KEYS, Key, Options};
use super::values::Resume;
use super::yaml;
use crate::Error;
use serde::Deserialize;
use std::collections::BTreeMap;
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

    /// What is said, as TOML.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self)
            .map_err(|e| Error::new(format!("the configuration cannot be written as TOML: {e}")))
    }

    /// The keys that are given.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let table = self.table().unwrap_or_default();
        KEYS.iter().map(|key| key.name).filter(|name| table.contains_key(*name)).collect()
    }

    /// Reads a TOML file, or one in YAML (.yaml, .yml), a recipe: that has its trainer's defaults, and keys without
    /// effect are noted. Keys may be written in snake or kebab case; paths are relative to the working directory.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML or YAML, or has an unknown, doubled or unsupported key or a wrong value; the
    /// message names file and key.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::new(format!("cannot read the configuration {}: {e}", path.display())))?;
        let is_recipe = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let read = if is_recipe { Self::parse_recipe(&text) } else { Self::parse(&text) };
        read.map_err(|e| Error::new(format!("{}: {e}", path.display())))
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
        let mut seen = BTreeMap::new();
        let mut options = Self::default();
        for (written, value) in table {
            let key = written.replace('-', "_");
            let said = Said::from(&value);
            let one = if KEYS.iter().any(|known| known.name == key) {
                let one = toml::Table::from_iter([(key.clone(), value)]);
                let mut one = Self::deserialize(one)
                    .map_err(|e| Error::new(format!("`{written}`: {}", e.message())))?;
                one.recipe.idle = notes_of_value(&key, &said.text());
                one
            } else {
                foreign::read(&key, &said)?
            };
            for given in one.given() {
                let Some(before) = seen.insert(given, key.clone()) else { continue };
                let theirs = if before == given { &key } else { &before };
                return Err(Error::new(match before == key {
                    true => format!("`{key}` is given twice, in two spellings; remove one"),
                    false => format!("`{theirs}` is `{given}`, which is given too; keep one"),
                }));
            }
            options = options.or(one);
        }
        Ok(options)
    }

    /// Parses the text of a recipe in YAML; the errors of [`Options::read`] without the file's name.
    ///
    /// # Errors
    /// As [`Options::read`].
    pub fn parse_recipe(text: &str) -> Result<Self, Error> {
        foreign::recipe(&yaml::parse(text)?)
    }
}

impl Config {
    /// The same, as the folders of a run say it: `duel train duel.toml --resume-from-checkpoint` goes on, wherever the
    /// run itself began, and removes nothing.
    pub fn to_go_on(&self) -> Self {
        Config { overwrite_output_dir: false, resume_from_checkpoint: Resume::Off, ..self.clone() }
    }

    /// The configuration as TOML, one line per key in the order of the help text, and those of the judge that are said.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, Error> {
        let failed = |e| Error::new(format!("the configuration cannot be written as TOML: {e}"));
        let of_judge: BTreeMap<_, _> = self.judging.said().collect();
        // Tables are last.
        Ok(toml::to_string(&of_judge).map_err(failed)? + &toml::to_string(&self.said()).map_err(failed)?)
    }
}
