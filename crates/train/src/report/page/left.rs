//! What a command left in its folder.

use super::super::metrics::{self, Record};
use crate::Error;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Studies that leave a picture and tables, by the names of their files.
const STUDIES: [&str; 6] = ["frontier", "theorem", "tournament", "cycle", "duels", "table"];

/// Reports that a user keeps beside a run, as `duel eval` prints them.
const REPORTS: [&str; 2] = ["eval.txt", "eval.json"];

/// What a model wrote at a step.
pub struct Sample {
    pub step: u64,
    pub prompt: String,
    pub completion: String,
}

/// What a command left.
pub struct Left {
    /// What its columns are headed with: the folder's name, and as much of its path as tells it from the others.
    pub name: String,
    /// Metrics in the order of their steps; none of what is no run.
    pub records: Vec<Record>,
    pub settings: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
    /// Text files by their names.
    pub reports: Vec<(String, String)>,
    /// Pictures by their names.
    pub pictures: Vec<(String, String)>,
}

impl Left {
    /// Reads the folder `dir`, which is called `name`.
    ///
    /// # Errors
    /// There is none, it holds neither a run nor a study, or a file in it is damaged.
    pub fn read(dir: &Path, name: String) -> Result<Self, Error> {
        if !dir.is_dir() {
            let what = if dir.exists() {
                "is a file; name the folder that it is in"
            } else {
                "there is no such folder"
            };
            return Err(Error::new(format!("{}: {what}", dir.display())));
        }
        let of = |names: &[String]| -> Result<Vec<(String, String)>, Error> {
            let file = |name: &String| Ok(text(&dir.join(name))?.map(|content| (name.clone(), content)));
            names.iter().filter_map(|name| file(name).transpose()).collect()
        };
        let named = |ending: &str| STUDIES.map(|study| format!("{study}.{ending}"));
        let left = Left {
            name,
            records: metrics::read(&dir.join("metrics.jsonl"))?,
            settings: settings(&dir.join("duel.toml"))?,
            samples: samples(&dir.join("samples.jsonl"))?,
            reports: of(&[&REPORTS.map(String::from)[..], &named("md")].concat())?,
            pictures: of(&named("svg"))?,
        };
        if left.records.is_empty() && left.reports.is_empty() && left.pictures.is_empty() {
            return Err(Error::new(format!(
                "{} holds neither a run nor a study: no metrics.jsonl with a step in it, and no picture of {}; name the \
                 output folder of a command",
                dir.display(),
                STUDIES.join(", ")
            )));
        }
        Ok(left)
    }

    /// The last value of each metric.
    pub fn last_metrics(&self) -> BTreeMap<String, f64> {
        let all = self.records.iter().flatten();
        all.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
    }

    /// The first and the last step with samples, or the only one.
    pub fn sampled(&self) -> impl Iterator<Item = u64> + use<> {
        let steps = || self.samples.iter().map(|sample| sample.step);
        let (first, last) = (steps().min(), steps().max());
        first.into_iter().chain(last.filter(|_| first != last))
    }
}

/// What folders are called: their names, with as much of the paths before them as tells each from the others.
pub fn names(dirs: &[PathBuf]) -> Vec<String> {
    let whole: Vec<PathBuf> =
        dirs.iter().map(|dir| fs::canonicalize(dir).unwrap_or_else(|_| dir.clone())).collect();
    let end = |path: &PathBuf, parts: usize| -> PathBuf {
        let all: Vec<_> = path.components().collect();
        all[all.len().saturating_sub(parts)..].iter().collect()
    };
    let longest = whole.iter().map(|path| path.components().count()).max().unwrap_or(0);
    let name = |path: &PathBuf| {
        let same =
            |parts: &usize| whole.iter().filter(|other| end(other, *parts) == end(path, *parts)).count() == 1;
        let parts = (1..longest).find(same).unwrap_or(1);
        end(path, parts).display().to_string()
    };
    whole.iter().map(name).collect()
}

/// A file's text; `None` where there is no file.
fn text(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::new(format!("{}: cannot be read: {e}", path.display()))),
    }
}

fn settings(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let said: toml::Table = text(path)?.unwrap_or_default().parse().map_err(|e: toml::de::Error| {
        Error::new(format!("{}: {}; is it another program's?", path.display(), e.message().trim()))
    })?;
    let shown = |value: toml::Value| match value {
        toml::Value::String(text) => text,
        value => value.to_string(),
    };
    Ok(said.into_iter().map(|(key, value)| (key, shown(value))).collect())
}

fn samples(path: &Path) -> Result<Vec<Sample>, Error> {
    let all = text(path)?.unwrap_or_default();
    let sample = |(i, line): (usize, &str)| {
        let said: Option<Value> = serde_json::from_str(line).ok();
        let of = |said: &Value| {
            let text = |key: &str| said[key].as_str().map(String::from);
            Some(Sample {
                step: said["step"].as_u64()?,
                prompt: text("prompt")?,
                completion: text("completion")?,
            })
        };
        said.as_ref().and_then(of).ok_or_else(|| {
            Error::new(format!(
                "{}, line {}: not a sample (a JSON object with step, prompt and completion); remove the line",
                path.display(),
                i + 1
            ))
        })
    };
    // A run that is being written may have half a line at its end.
    all.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n')).map(sample).collect()
}
