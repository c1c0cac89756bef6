//! Data sets that are learned from, or evaluated on, together: which, how they are read, how much of each.

use super::values::{Names, Text};
use crate::Error;
use duel_data::{Axolotl, Columns, Factory, Form};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

/// Called of columns: pairs of the name that is read and that of the file, or the only ones that are read.
#[derive(Debug, Clone, PartialEq)]
pub enum Called {
    /// As `prompt=question,chosen=good` or as a table.
    Pairs(BTreeMap<String, String>),
    /// As a list.
    Only(Vec<String>),
}

impl Called {
    /// The columns of these names.
    ///
    /// # Errors
    /// A name that is read is none, or one is there twice.
    pub fn columns(&self) -> Result<Columns, Error> {
        match self {
            Called::Pairs(pairs) => Columns::new(pairs.clone()),
            Called::Only(names) => Ok(Columns::only(names.iter().cloned())),
        }
        .map_err(|e| Error::new(format!("`columns`: {e}")))
    }

    fn pairs(&self, key: &str) -> Result<Vec<(String, String)>, Error> {
        match self {
            Called::Pairs(pairs) => Ok(pairs.clone().into_iter().collect()),
            Called::Only(_) => Err(Error::new(format!("`{key}` is a table of names"))),
        }
    }
}

impl FromStr for Called {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let pairs: Result<BTreeMap<String, String>, _> = serde_json::from_str(text);
        if let Ok(table) = pairs {
            return Ok(Called::Pairs(table));
        }
        Ok(Called::Pairs(text.parse::<Columns>()?.pairs().iter().cloned().collect()))
    }
}

impl Text for Called {}

impl Serialize for Called {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Called::Pairs(pairs) => pairs.serialize(serializer),
            Called::Only(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Called {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            Text(String),
            List(Vec<String>),
            Table(BTreeMap<String, String>),
        }
        match Said::deserialize(deserializer)? {
            // Of `tags` too, whose names are no columns.
            Said::Text(text) => {
                let pairs = Columns::written(&text).map_err(D::Error::custom)?;
                let (said, pairs) = (pairs.len(), BTreeMap::from_iter(pairs));
                match pairs.len() == said {
                    true => Ok(Called::Pairs(pairs)),
                    false => Err(D::Error::custom(format!("`{text}` has a name twice; keep one"))),
                }
            }
            Said::List(names) => Ok(Called::Only(names)),
            Said::Table(table) => Ok(Called::Pairs(table)),
        }
    }
}

/// One data set of several.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Entry {
    /// As `dataset`.
    #[serde(alias = "id")]
    pub path: PathBuf,
    /// As `dataset_config`.
    #[serde(alias = "name", alias = "subset", skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// As `dataset_train_split`, or as `dataset_test_split` where it is evaluated on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// As `data_files`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_files: Option<Names>,
    /// What columns are called: as `columns`; of LLaMA-Factory's shapes in its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Called>,
    /// LLaMA-Factory's shape: alpaca, sharegpt or openai.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub formatting: Option<String>,
    /// Whether a row of such is a pair.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ranking: bool,
    /// What turns of such are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Called>,
    /// What axolotl calls the kind of its file, which the file's own name says.
    #[serde(skip_serializing)]
    pub ds_type: Option<String>,
    /// axolotl's kind.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The column of such that holds the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_messages: Option<String>,
    /// That of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_prompt: Option<String>,
    /// That of the system message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_system: Option<String>,
    /// That of the better response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_chosen: Option<String>,
    /// That of the worse one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_rejected: Option<String>,
    /// What the prompt becomes: a text with `{prompt}` and `{system}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_format: Option<String>,
    /// What the better response becomes: a text with `{chosen}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen_format: Option<String>,
    /// What the worse one becomes: a text with `{rejected}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_format: Option<String>,
    /// Its share of the whole, of the sum of all shares: as large as these let it be; the first of its rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// The share of its rows that is learned from, drawn by the seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// How many of its rows are, drawn by the seed.
    #[serde(alias = "num_samples", skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// How many of its first rows are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<usize>,
}

impl Entry {
    /// How its rows stand in its files.
    ///
    /// # Errors
    /// What it says of that cannot be, or not together.
    pub fn form(&self) -> Result<Form, Error> {
        let wrong = |e: String| Error::new(format!("the data set {}: {e}", self.path.display()));
        match (&self.formatting, &self.kind) {
            (Some(_), Some(_)) => Err(wrong("has `formatting` and `type`; keep one".into())),
            (Some(_), None) if self.beside(&[]).is_some() => {
                Err(wrong("has `formatting` and names columns as axolotl does; give `columns`".into()))
            }
            (Some(formatting), None) => {
                let columns = self.columns.as_ref().map(|names| names.pairs("columns")).transpose()?;
                let tags = self.tags.as_ref().map(|names| names.pairs("tags")).transpose()?;
                Factory::new(formatting, self.ranking, columns, tags).map(Form::Factory).map_err(wrong)
            }
            (None, _) if self.ranking || self.tags.is_some() => {
                Err(wrong("has `ranking` or `tags`, which go with `formatting`".into()))
            }
            (None, Some(_)) if self.columns.is_some() => {
                Err(wrong("has `type` and `columns`; a type says which columns it reads".into()))
            }
            (None, Some(kind)) => self.axolotls(kind).map_err(wrong),
            (None, None) if self.beside(&[]).is_some() => {
                Err(wrong(format!("`{}` goes with a `type`", self.beside(&[]).unwrap_or_default())))
            }
            (None, None) => {
                let columns = self.columns.as_ref().map(Called::columns).transpose()?;
                Ok(Form::Named(columns.unwrap_or_default()))
            }
        }
    }

    /// What is said of columns of axolotl's kinds, unless it is among those that the kind reads.
    fn beside(&self, read: &[&str]) -> Option<&'static str> {
        let said = [
            ("field_messages", &self.field_messages),
            ("field_prompt", &self.field_prompt),
            ("field_system", &self.field_system),
            ("field_chosen", &self.field_chosen),
            ("field_rejected", &self.field_rejected),
            ("prompt_format", &self.prompt_format),
            ("chosen_format", &self.chosen_format),
            ("rejected_format", &self.rejected_format),
        ];
        let odd = said.into_iter().find(|(name, said)| said.is_some() && !read.contains(name));
        odd.map(|(name, _)| name)
    }

    /// That of a kind of axolotl's.
    fn axolotls(&self, kind: &str) -> Result<Form, String> {
        let read: &[&str] = match kind {
            "chat_template" => &["field_messages"],
            "chat_template.default" => &["field_messages", "field_chosen", "field_rejected"],
            "chat_template.argilla_chat" => &["field_chosen", "field_rejected"],
            "user_defined.default" => &[
                "field_prompt",
                "field_system",
                "field_chosen",
                "field_rejected",
                "prompt_format",
                "chosen_format",
                "rejected_format",
            ],
            _ => &[],
        };
        if let Some(odd) = self.beside(read) {
            return Err(format!("`type = {kind}` does not read `{odd}`; remove it"));
        }
        let or = |said: &Option<String>, usual: &str| said.clone().unwrap_or_else(|| usual.into());
        let (chosen, rejected) = (or(&self.field_chosen, "chosen"), or(&self.field_rejected, "rejected"));
        let named = |pairs: &[(&str, &String)]| {
            Columns::new(pairs.iter().map(|(ours, theirs)| ((*ours).into(), (*theirs).clone())))
                .map(Form::Named)
        };
        match kind {
            // A conversation alone is learned from as it is.
            "chat_template" => named(&[("messages", &or(&self.field_messages, "messages"))]),
            "chat_template.default" => named(&[
                ("messages", &or(&self.field_messages, "messages")),
                ("chosen", &chosen),
                ("rejected", &rejected),
            ]),
            "chat_template.argilla_chat" => named(&[("chosen", &chosen), ("rejected", &rejected)]),
            "user_defined.default" => {
                let prompt = or(&self.field_prompt, "prompt");
                let format = |said: &Option<String>, what: &str| or(said, &format!("{{{what}}}"));
                let formats = [
                    format(&self.prompt_format, "prompt"),
                    format(&self.chosen_format, "chosen"),
                    format(&self.rejected_format, "rejected"),
                ];
                let fields = [prompt, or(&self.field_system, "system"), chosen, rejected];
                Ok(Form::Axolotl(Axolotl::Formats { fields, formats }))
            }
            _ => Axolotl::named(kind).map(Form::Axolotl),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |e: &str| Err(Error::new(format!("the data set {}: {e}", self.path.display())));
        if self.path.as_os_str().is_empty() {
            return Err(Error::new("a data set has no `path`"));
        }
        if self.weight.is_some_and(|x| !(x > 0.0 && x <= 1.0)) {
            return wrong("a `weight` is above 0 and at most 1");
        }
        if self.fraction.is_some_and(|x| !(x > 0.0 && x.is_finite())) {
            return wrong("a `fraction` is a number above 0");
        }
        if self.samples == Some(0) || self.first == Some(0) {
            return wrong("none of its rows would be read; leave it out");
        }
        let how_much =
            [self.fraction.is_some(), self.weight.is_some(), self.samples.is_some(), self.first.is_some()];
        if how_much.iter().filter(|said| **said).count() > 1 {
            return wrong("keep one of `fraction`, `weight`, `samples` and `first`");
        }
        self.form().map(drop)
    }
}

/// Data sets that are read together, in order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mixture(pub Vec<Entry>);

impl Mixture {
    /// That of these.
    ///
    /// # Errors
    /// There is none, or one of them cannot be.
    pub fn new(entries: Vec<Entry>) -> Result<Self, Error> {
        if entries.is_empty() {
            return Err(Error::new("there are no data sets in the list"));
        }
        let fractions = entries.iter().filter(|entry| entry.fraction.is_some()).count();
        if fractions > 0 && fractions < entries.len() {
            return Err(Error::new("some data sets have a `fraction`; give each one"));
        }
        entries.iter().try_for_each(Entry::check)?;
        Ok(Mixture(entries))
    }

    /// How they are called together.
    pub fn name(&self) -> PathBuf {
        let names: Vec<String> = self.0.iter().map(|entry| entry.path.display().to_string()).collect();
        names.join(" + ").into()
    }
}

impl<'de> Deserialize<'de> for Mixture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = |value| match value {
            toml::Value::String(path) => Ok(Entry { path: path.into(), ..Entry::default() }),
            table => table.try_into().map_err(|e: toml::de::Error| D::Error::custom(e.message())),
        };
        let entries = Vec::<toml::Value>::deserialize(deserializer)?.into_iter().map(entry);
        Mixture::new(entries.collect::<Result<_, D::Error>>()?).map_err(D::Error::custom)
    }
}

impl FromStr for Mixture {
    type Err = Error;
    /// Paths with commas, or entries as JSON with commas.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.trim_start().starts_with('{') {
            let entries = serde_json::from_str(&format!("[{text}]"))
                .map_err(|e| Error::new(format!("the data sets are no JSON of entries: {e}")))?;
            return Mixture::new(entries);
        }
        let paths = text.split(',').map(str::trim).filter(|path| !path.is_empty());
        Mixture::new(paths.map(|path| Entry { path: path.into(), ..Entry::default() }).collect())
    }
}

impl Text for Mixture {}
