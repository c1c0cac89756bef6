//! Which rows a recipe is about. What names of theirs mean in data sets is decided here and nowhere else.

use super::super::mixture::{Called, Entry as Rows, Mixture};
use super::super::said::{Entry, Said};
use super::super::table::Options;
use super::super::values::{EvalStrategy, Maybe};
use super::Dialect;
use crate::Error;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

impl Options {
    /// Makes data sets of the keys that say which rows a recipe reads, unless one is named beside it.
    ///
    /// # Errors
    /// They say what is not to be had here.
    pub(in super::super) fn settle_rows(&mut self, dialect: Option<Dialect>) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.recipe.rows);
        let factory = dialect == Some(Dialect::LlamaFactory);
        let names = self.dataset.clone().filter(|_| factory);
        // A file, or one that is there, is named beside a recipe, or in the place of its entries.
        let is_path =
            |path: &PathBuf| path.exists() || path.extension().is_some() || path.components().count() > 1;
        let named = self.dataset.as_ref().is_some_and(|path| !factory || is_path(path));
        if named && dialect.is_some() {
            self.datasets = None;
        }
        let said = |name: &str| rows.iter().find(|entry| entry.key == name).map(|entry| &entry.value);
        let mut left: Vec<&Entry> = rows.iter().collect();
        let mut take = |names: &[&str]| left.retain(|entry| !names.contains(&entry.key.as_str()));
        let entries = |names: &Path| {
            let folder = said("dataset_dir").map_or("data".into(), Said::text);
            let first = said("max_samples").map(|most| number("max_samples", most)).transpose()?;
            Ok::<_, Error>(Some(Maybe(Some(described(names, Path::new(&folder), first)?))))
        };
        let evaluated = self.eval_dataset.as_ref().and_then(|rows| rows.0.clone());
        if let Some(names) = evaluated.filter(|names| factory && !is_path(names)) {
            self.eval_dataset = None;
            self.eval_datasets = entries(&names)?;
            take(&["dataset_dir", "max_samples"]);
        }
        if named {
            let why = "the rows are those of the dataset that is named";
            self.recipe.idle.extend(left.into_iter().map(|e| (e.key.clone(), why.to_owned())));
            return Ok(());
        }
        if let Some(names) = names {
            self.dataset = None;
            self.datasets = entries(&names)?;
            take(&["dataset_dir", "max_samples"]);
        } else if let Some(mixture) = said("dataset_mixture") {
            self.mixture(mixture)?;
            take(&["dataset_mixture"]);
        } else if let Some(mixer) = said("dataset_mixer") {
            self.mixer(mixer, &items(said("dataset_splits")), &items(said("dataset_configs")))?;
            take(&["dataset_mixer", "dataset_splits", "dataset_configs"]);
        }
        match left.first() {
            None => Ok(()),
            Some(entry) => Err(Error::new(format!(
                "`{} = {}` is not read; give --dataset and, to evaluate, --eval-dataset or --test-split-size",
                entry.key, entry.value
            ))),
        }
    }

    /// alignment-handbook's `dataset_mixture`.
    fn mixture(&mut self, said: &Said) -> Result<(), Error> {
        let Said::Table(entries) = said else {
            return Err(Error::new("`dataset_mixture` is a mapping with `datasets`"));
        };
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "datasets" => self.datasets = Some(Maybe(Some(value.text().parse()?))),
                "seed" => {
                    let why = "rows are drawn by `seed`, in an order that is not numpy's";
                    self.recipe.idle.push(("dataset_mixture.seed".into(), why.into()));
                }
                "test_split_size" if *value == Said::Null => {}
                "test_split_size" => {
                    let size = value.text().parse();
                    let size = size.map_err(|_| Error::new("`test_split_size` is a number"))?;
                    self.test_split_size = self.test_split_size.take().or(Some(Maybe(Some(size))));
                }
                _ => return Err(Error::new(format!("`dataset_mixture` has `{key}`, which is not known"))),
            }
        }
        Ok(())
    }

    /// alignment-handbook's older `dataset_mixer`: a weight by name, and the splits and configurations of all.
    fn mixer(&mut self, mixer: &Said, splits: &[String], configs: &[String]) -> Result<(), Error> {
        let Said::Table(sets) = mixer else {
            return Err(Error::new("`dataset_mixer` is a mapping of names and weights"));
        };
        let (train, test): (Vec<&String>, Vec<&String>) =
            splits.iter().partition(|split| split.contains("train"));
        if let Some(odd) = test.iter().find(|split| !split.contains("test")) {
            return Err(Error::new(format!(
                "`dataset_splits` has `{odd}`, whose name has neither train nor test in it; remove it"
            )));
        }
        if train.is_empty() && !test.is_empty() {
            return Err(Error::new("`dataset_splits` has no split to learn from; add one"));
        }
        let train: Vec<Option<String>> =
            if train.is_empty() { vec![None] } else { train.into_iter().cloned().map(Some).collect() };
        let test: Vec<Option<String>> = test.into_iter().cloned().map(Some).collect();
        let (mut learned, mut evaluated) = (Vec::new(), Vec::new());
        for (i, Entry { key, value, .. }) in sets.iter().enumerate() {
            let weight: f64 = value
                .text()
                .parse()
                .map_err(|_| Error::new(format!("`dataset_mixer`, {key}: {value} is no weight")))?;
            let of = |split: &Option<String>, weight: Option<f64>| Rows {
                path: key.into(),
                config: configs.get(i).cloned(),
                split: split.clone(),
                weight,
                ..Rows::default()
            };
            learned.extend(train.iter().map(|split| of(split, (weight != 1.0).then_some(weight))));
            // All of them, so that runs on other shares can be compared.
            evaluated.extend(test.iter().map(|split| of(split, None)));
        }
        self.datasets = Some(Maybe(Some(Mixture::new(learned)?)));
        let evaluates = self.eval_strategy.is_some_and(|strategy| strategy != EvalStrategy::No);
        let why = match self.evaluates_on() {
            _ if !evaluates => "there are no evaluations",
            Some(_) => "rows to evaluate on are named beside it",
            None if evaluated.is_empty() => return Ok(()),
            None => {
                self.eval_datasets = Some(Maybe(Some(Mixture::new(evaluated)?)));
                return Ok(());
            }
        };
        let noted = |split: Option<String>| Some((format!("dataset_splits = {}", split?), why.to_owned()));
        self.recipe.idle.extend(test.into_iter().filter_map(noted));
        Ok(())
    }
}

fn number(key: &str, said: &Said) -> Result<usize, Error> {
    said.text().parse().map_err(|_| Error::new(format!("`{key} = {said}` is no number of rows")))
}

fn items(said: Option<&Said>) -> Vec<String> {
    match said {
        None | Some(Said::Null) => Vec::new(),
        Some(Said::List(items)) => items.iter().map(Said::text).collect(),
        Some(one) => one.text().split(',').map(|item| item.trim().to_owned()).collect(),
    }
}

/// LLaMA-Factory's data sets of these names, with commas, as `dataset_info.json` in `folder` has them; of each the
/// `first` rows.
fn described(names: &Path, folder: &Path, first: Option<usize>) -> Result<Mixture, Error> {
    let file = folder.join("dataset_info.json");
    let wrong = |what: String| Error::new(format!("{}: {what}", file.display()));
    let text = std::fs::read_to_string(&file).map_err(|e| {
        wrong(format!("cannot be read, and says what the dataset {} is: {e}", names.display()))
    })?;
    let known: Map<String, Value> =
        serde_json::from_str(&text).map_err(|e| wrong(format!("is no JSON object: {e}")))?;
    let names = names.to_string_lossy();
    let entries = names.split(',').map(str::trim).map(|name| match known.get(name) {
        Some(Value::Object(entry)) => {
            entry_of(entry, folder, first).map_err(|e| wrong(format!("`{name}`: {e}")))
        }
        Some(_) => Err(wrong(format!("`{name}` is no object"))),
        None => {
            let all: Vec<&str> = known.keys().map(String::as_str).collect();
            Err(wrong(format!("has no `{name}`; it has {}", all.join(", "))))
        }
    });
    Mixture::new(entries.collect::<Result<_, _>>()?)
}

/// What one of its entries says.
fn entry_of(said: &Map<String, Value>, folder: &Path, first: Option<usize>) -> Result<Rows, String> {
    let mut rows = Rows { formatting: Some("alpaca".into()), first, ..Rows::default() };
    let mut revision = None;
    for (key, value) in said {
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| format!("`{key}` is no text"));
        let names = || {
            let table = value.as_object().ok_or_else(|| format!("`{key}` is no object"))?;
            let pair = |(ours, theirs): (&String, &Value)| match theirs {
                Value::String(theirs) => Ok((ours.clone(), theirs.clone())),
                _ => Err(format!("`{key}.{ours}` is no text")),
            };
            Ok::<_, String>(Called::Pairs(table.iter().map(pair).collect::<Result<_, _>>()?))
        };
        match key.as_str() {
            "hf_hub_url" => rows.path = text()?.into(),
            "file_name" if said.contains_key("hf_hub_url") => {}
            "file_name" => rows.path = folder.join(text()?),
            "ms_hub_url" | "om_hub_url" if said.contains_key("hf_hub_url") => {}
            "revision" => revision = Some(text()?),
            "formatting" => rows.formatting = Some(text()?),
            "ranking" => rows.ranking = value.as_bool().ok_or("`ranking` is true or false")?,
            "subset" => rows.config = Some(text()?),
            "split" => rows.split = Some(text()?),
            "num_samples" => {
                let most = value.as_u64().ok_or("`num_samples` is no number")?;
                rows.samples = Some(most as usize);
            }
            "columns" => rows.columns = Some(names()?),
            "tags" => rows.tags = Some(names()?),
            _ => return Err(format!("`{key}` is not read")),
        }
    }
    if rows.path.as_os_str().is_empty() {
        return Err("has no `file_name` and no `hf_hub_url`".into());
    }
    if let Some(revision) = revision {
        rows.path = PathBuf::from(format!("{}@{revision}", rows.path.display()));
    }
    Ok(rows)
}
