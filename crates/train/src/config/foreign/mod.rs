//! Keys in the words of other trainers: TRL and transformers, alignment-handbook, LLaMA-Factory, axolotl.
//!
//! Each is exactly one of: another name of a key, something that keys of duel say, rows, a note (no number depends on
//! it) or an error (numbers would be others). [`WORDS`] is the table; `docs/recipes.md` is made of it.

mod dialect;
mod others;
mod rows;
#[cfg(test)]
mod tests;
mod trl;

pub use dialect::Dialect;

use super::said::{Entry, Said};
use super::table::{KEYS, Key, Options};
use super::values::{Form, Method, nearest};
use crate::Error;
use std::collections::BTreeMap;

/// What one key of theirs is.
pub struct Word {
    /// Its names; one that ends in `*` is all that begin so.
    pub names: &'static [&'static str],
    /// What it means here.
    pub meaning: Meaning,
}

/// What a key of theirs means.
pub enum Meaning {
    /// The key of this name.
    Is(&'static str),
    /// What a function makes of its value, in keys of duel; said in words.
    Says(&'static str, fn(&str) -> Result<Keys, String>),
    /// A table whose keys are keys.
    Keys,
    /// Which rows are read.
    Rows,
    /// No number depends on it: why.
    Idle(&'static str),
    /// It may have these values, which are what duel does. With others numbers would be others: what to do.
    Only(&'static [&'static str], &'static str),
}

/// Keys of duel with their values.
pub type Keys = Vec<(&'static str, String)>;

/// All of them, by whose they are.
pub const WORDS: &[(&str, &[Word])] = &[
    ("TRL and transformers", trl::WORDS),
    ("alignment-handbook", others::HANDBOOK),
    ("LLaMA-Factory", others::LLAMA_FACTORY),
    ("axolotl", others::AXOLOTL),
];

/// Values of duel's own keys that do what another value does, where no number depends on the difference: key, values,
/// why.
const VALUES: &[(&str, &[&str], &str)] = &[
    ("optim", super::values::NARROW_MOMENTS, "moments are kept in float32"),
    (
        "report_to",
        super::values::TRACKERS,
        "metrics go to metrics.jsonl, of which track.py (beside the program's archive, or in its repository) tells wandb or trackio",
    ),
];

/// What a recipe says beside keys of duel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recipe {
    /// Whose words it is in; `None`: it is none.
    pub dialect: Option<Dialect>,
    /// Environment variables to be set.
    pub env: BTreeMap<String, String>,
    /// What no number depends on: the key, and why it is left out.
    pub idle: Vec<(String, String)>,
    /// Keys that say which rows are read.
    rows: Vec<Entry>,
    /// How often an epoch something is done: axolotl's `evals_per_epoch` and `saves_per_epoch`.
    per_epoch: Vec<(&'static str, f64)>,
}

impl Recipe {
    /// What both say; the first where they differ.
    pub fn or(mut self, other: Self) -> Self {
        self.dialect = self.dialect.or(other.dialect);
        self.idle.extend(other.idle);
        self.rows.extend(other.rows);
        self.per_epoch.extend(other.per_epoch);
        for (name, value) in other.env {
            self.env.entry(name).or_insert(value);
        }
        self
    }

    /// Lets files alone say which rows are read.
    pub(super) fn forget_rows(&mut self) {
        self.rows.clear();
    }

    /// Notes for its user: what is left out, by the reason.
    pub fn notes(&self) -> Vec<String> {
        let mut by_reason: Vec<(&str, Vec<String>)> = Vec::new();
        for (key, why) in &self.idle {
            let key = format!("`{key}`");
            match by_reason.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, keys)) if keys.contains(&key) => {}
                Some((_, keys)) => keys.push(key),
                None => by_reason.push((why, vec![key])),
            }
        }
        by_reason.into_iter().map(|(why, keys)| format!("{}: {why}", keys.join(", "))).collect()
    }
}

/// The word of this name, in snake case.
pub fn word(name: &str) -> Option<&'static Word> {
    let all = || WORDS.iter().flat_map(|(_, words)| *words);
    let named = |word: &&Word| word.names.contains(&name);
    let begins = |word: &&Word| {
        let prefixes = word.names.iter().filter_map(|name| name.strip_suffix('*'));
        prefixes.into_iter().any(|prefix| name.starts_with(prefix))
    };
    all().find(named).or_else(|| all().find(begins))
}

fn own(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// What the keys of a recipe say, whoever's words they are in.
///
/// # Errors
/// A key is unknown or given twice, or what it says is not to be had here; the message names it.
pub(super) fn recipe(entries: &[Entry]) -> Result<Options, Error> {
    let mut options = Options::default();
    options.recipe.dialect = Some(Dialect::of(entries));
    add(&mut options, entries)?;
    Ok(options)
}

/// Adds what `entries` say to `options`.
///
/// # Errors
/// As [`recipe`].
pub(super) fn add(options: &mut Options, entries: &[Entry]) -> Result<(), Error> {
    // Of two that say the same, one may be weaker than the other; it comes last.
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort_by_key(|entry| weakness(entry));
    for entry in entries {
        let at = |e: Error| match entry.line {
            0 => e,
            line => Error::new(format!("line {line}: {e}")),
        };
        let said = read(&entry.key.replace('-', "_"), &entry.value).map_err(at)?;
        // A method of pairs that has a name of its own is told apart by its loss there.
        let plain = |options: &Options| options.method == Some(Method::Dpo);
        let mut said = said;
        match (plain(options), plain(&said)) {
            (true, false) if said.method.is_some() => options.method = None,
            (_, true) if options.method.is_some() => said.method = None,
            _ => {}
        }
        let twice = said.given().into_iter().find(|key| options.given().contains(key));
        if let Some(key) = twice {
            if weakness(entry) > 0 {
                continue;
            }
            return Err(at(Error::new(format!(
                "`{}` says `{key}`, which is given already; keep one",
                entry.key
            ))));
        }
        *options = std::mem::take(options).or(said);
    }
    Ok(())
}

/// How readily a key yields to another that says the same: `warmup_steps` of transformers wins over `warmup_ratio`
/// where it is above 0, and null is as if the key were not there. 0: not at all.
pub(super) fn weakness(entry: &Entry) -> u8 {
    match entry.key.replace('-', "_").as_str() {
        _ if entry.value == Said::Null => 3,
        "warmup_steps" if entry.value.text().parse() == Ok(0.0) => 2,
        "warmup_ratio" => 1,
        _ => 0,
    }
}

/// What one key says, by its name in snake case.
///
/// # Errors
/// There is no such key, or what it says is not to be had here.
pub fn read(key: &str, value: &Said) -> Result<Options, Error> {
    let mut options = Options::default();
    if key == "env" {
        let Said::Table(variables) = value else {
            return Err(Error::new("`env` is a mapping of environment variables"));
        };
        options.recipe.env = variables.iter().map(|e| (e.key.clone(), e.value.text())).collect();
        return Ok(options);
    }
    if let Some(own) = own(key) {
        return read_own(own, key, value);
    }
    if duel_judge::KEYS.iter().any(|known| known.name == key) {
        let said = [(key.to_owned(), value.text())];
        options.judging = duel_judge::Settings::new(said).map_err(|e| Error::new(e.to_string()))?;
        return Ok(options);
    }
    let Some(word) = word(key) else {
        let known = WORDS.iter().flat_map(|(_, words)| *words).flat_map(|word| word.names).copied();
        let near = nearest(key, KEYS.iter().map(|known| known.name).chain(known));
        return Err(Error::new(format!("unknown key `{key}`; did you mean `{near}`?")));
    };
    if *value == Said::Null {
        return match word.meaning {
            Meaning::Is(name) => own(name).map_or(Ok(options), |own| read_own(own, key, value)),
            _ => Ok(options),
        };
    }
    match word.meaning {
        Meaning::Is(name) => own(name).map_or(Ok(options), |own| read_own(own, key, value)),
        Meaning::Says(_, keys) => {
            let wrong = |why| Error::new(format!("`{key} = {value}` is not supported: {why}"));
            for (name, value) in keys(&value.text()).map_err(wrong)? {
                let said = match name {
                    "evals_per_epoch" | "saves_per_epoch" => {
                        let times =
                            value.parse().ok().filter(|times: &f64| times.is_finite() && *times >= 0.0);
                        let times = times.ok_or_else(|| wrong("it is a number from 0 on".into()))?;
                        let recipe = Recipe { per_epoch: vec![(name, times)], ..Recipe::default() };
                        Options { recipe, ..Options::default() }
                    }
                    _ => read(name, &Said::Text(value))?,
                };
                options = options.or(said);
            }
            Ok(options)
        }
        Meaning::Keys => match value {
            Said::Table(entries) => add(&mut options, entries).map(|()| options),
            _ => Err(Error::new(format!("`{key}` is a mapping of keys"))),
        },
        Meaning::Rows => {
            options.recipe.rows.push(Entry { key: key.into(), value: value.clone(), line: 0 });
            Ok(options)
        }
        Meaning::Idle(why) => {
            options.recipe.idle.push((key.into(), why.into()));
            Ok(options)
        }
        Meaning::Only(values, way) => {
            let text = value.text();
            let same = |allowed: &&str| match (allowed.parse::<f64>(), text.parse::<f64>()) {
                (Ok(a), Ok(b)) => a == b,
                _ => allowed.eq_ignore_ascii_case(&text),
            };
            match text.is_empty() || values.iter().any(same) {
                true => Ok(options),
                false => Err(Error::new(format!("`{key}` is not supported: {way}; remove it"))),
            }
        }
    }
}

/// What a flag of theirs says, in keys of duel with their values; and what is to be noted of it.
///
/// # Errors
/// There is no such key, what it says is not to be had here, or it has a meaning in a recipe alone.
pub fn read_flag(key: &str, text: &str) -> Result<(Vec<(String, String)>, Recipe), Error> {
    let mut options = read(key, &Said::Text(text.into()))?;
    options.settle_rows(None)?;
    if let Some((name, _)) = options.recipe.per_epoch.first() {
        return Err(Error::new(format!(
            "`{name}` counts by the epochs of its recipe; give eval_steps or save_steps"
        )));
    }
    let keys =
        options.table()?.iter().map(|(name, value)| (name.clone(), Said::from(value).text())).collect();
    Ok((keys, options.recipe))
}

/// What a key of duel says, given under this name.
fn read_own(key: &'static Key, name: &str, value: &Said) -> Result<Options, Error> {
    let text = match value {
        // Their null is what none is here, and where there is no none it says nothing.
        Said::Null if !key.may_be_none => return Ok(Options::default()),
        value => value.text(),
    };
    let text = match (key.form, text.to_ascii_lowercase().as_str()) {
        (Form::Switch | Form::Optional, "true" | "yes" | "y" | "t" | "1") => "true".into(),
        (Form::Switch | Form::Optional, "false" | "no" | "n" | "f" | "0") => "false".into(),
        (Form::Optional, "auto") => "none".into(),
        _ => text,
    };
    if (key.name, text.as_str()) == ("loss_type", "nll") {
        return Ok(Options { method: Some(Method::Sft), ..Options::default() });
    }
    let mut options = key.read(&text).map_err(|e| match e.to_string() {
        said if said.starts_with('`') => e,
        said => Error::new(format!("`{name} = {text}`: {said}")),
    })?;
    options.recipe.idle = notes_of_value(key.name, &text);
    Ok(options)
}

/// What is to be noted of the value of a key of duel: the key with the value, and why it is as another.
pub fn notes_of_value(key: &str, text: &str) -> Vec<(String, String)> {
    let of_key = VALUES.iter().filter(|(name, ..)| *name == key);
    of_key
        .flat_map(|(_, values, why)| {
            let noted = text.split(',').map(str::trim).filter(|word| values.contains(word));
            noted.map(move |word| (format!("{key} = {word}"), (*why).to_owned()))
        })
        .collect()
}

/// Whether a text says yes.
///
/// # Errors
/// It says neither yes nor no.
fn yes(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "t" | "1" => Ok(true),
        "false" | "no" | "n" | "f" | "0" => Ok(false),
        _ => Err("it is true or false".into()),
    }
}

/// One key with its value.
fn key(name: &'static str, value: impl Into<String>) -> Result<Keys, String> {
    Ok(vec![(name, value.into())])
}
