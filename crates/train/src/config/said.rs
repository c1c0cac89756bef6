//! What a file or a command line says of a key, before it is known what the key is.

use serde_json::{Map, Value as Json};
use std::fmt;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Nothing: YAML's null.
    Null,
    /// A word, a number or a text.
    Text(String),
    /// A list.
    List(Vec<Said>),
    /// Keys with values of their own.
    Table(Vec<Entry>),
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As it was written.
    pub key: String,
    /// What it is set to.
    pub value: Said,
    /// Its line, from 1 on; 0 where that is not known.
    pub line: usize,
}

impl Said {
    /// As it would be given on a command line: a list with commas, a table as JSON, nothing as "none".
    pub fn text(&self) -> String {
        match self {
            Said::Null => "none".into(),
            Said::Text(text) => text.clone(),
            Said::List(items) => items.iter().map(Said::text).collect::<Vec<_>>().join(","),
            Said::Table(_) => self.json().to_string(),
        }
    }

    fn json(&self) -> Json {
        match self {
            Said::Null => Json::Null,
            Said::Text(text) => match serde_json::from_str::<Json>(text) {
                Ok(scalar) if scalar.is_number() || scalar.is_boolean() => scalar,
                _ => text.clone().into(),
            },
            Said::List(items) => items.iter().map(Said::json).collect(),
            Said::Table(entries) => {
                entries.iter().map(|e| (e.key.clone(), e.value.json())).collect::<Map<_, _>>().into()
            }
        }
    }
}

impl From<&toml::Value> for Said {
    fn from(value: &toml::Value) -> Self {
        match value {
            toml::Value::String(text) => Said::Text(text.clone()),
            toml::Value::Array(items) => Said::List(items.iter().map(Said::from).collect()),
            toml::Value::Table(table) => {
                let entry = |(key, value): (&String, _)| Entry {
                    key: key.clone(),
                    value: Said::from(value),
                    line: 0,
                };
                Said::Table(table.iter().map(entry).collect())
            }
            scalar => Said::Text(scalar.to_string()),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}
