//! What a configuration names, on disk: folders of models and files of rows, which may be on Hugging Face's Hub.

use super::output;
use crate::Error;
use crate::checkpoint;
use crate::config::{Called, Config, Entry, Mixture, Names};
use duel_data::{Files, Form, order};
use duel_hub::{Kind, Name, Rows};
use std::path::{Path, PathBuf};

/// The folder of the model `said`: that folder, or what is in the cache or on the Hub by that name.
///
/// # Errors
/// It is a name, and there is no such model.
pub fn folder(said: &Path) -> Result<PathBuf, Error> {
    Ok(duel_hub::model(said)?.at)
}

/// What `datasets` takes for a data set's name where `data_files` are files of that format.
const FORMATS: [&str; 4] = ["json", "csv", "parquet", "text"];

/// The files of rows that are asked for. `usual` is the split that is meant where none is said, which one file is.
///
/// # Errors
/// There is no such data set, configuration or split, or a file has none of what is asked.
pub fn files(asked: &Rows, usual: &str) -> Result<Files, Error> {
    if asked.name.is_file() && asked.split != usual {
        let (path, split) = (asked.name.display(), &asked.split);
        return Err(Error::new(format!(
            "{path}: is one file, and has no split {split} to choose; leave that out"
        )));
    }
    if let Some(name) = asked.name.to_str()
        && FORMATS.contains(&name)
        && !asked.name.exists()
        && !asked.data_files.is_empty()
    {
        let of_split = |said: &String| match said.split_once('=') {
            Some((split, file)) => (split == asked.split).then(|| file.to_owned()),
            None => Some(said.clone()),
        };
        let all = asked.data_files.iter().filter_map(of_split).map(|file| {
            let path = Path::new(&file);
            // A pattern is one of the files in its folder.
            let within = path.parent().filter(|folder| folder.is_dir() && !path.is_file());
            let named = within.zip(path.file_name().and_then(|name| name.to_str()));
            let (name, data_files) = match named {
                Some((folder, pattern)) => (folder, vec![format!("{}={pattern}", asked.split)]),
                None => (path, Vec::new()),
            };
            files(&Rows { name: name.to_owned(), data_files, ..asked.clone() }, &asked.split)
        });
        return Ok(Files::joined(&asked.name, all.collect::<Result<_, _>>()?)?);
    }
    let found = duel_hub::dataset(asked)?;
    Ok(Files::new(found.said, found.at))
}

/// The files of a split of the data set `said`, in its default configuration; one file has none.
///
/// # Errors
/// There is no such data set or split.
pub fn split(said: &Path, split: &str) -> Result<Files, Error> {
    files(&Rows { name: said.to_owned(), split: split.to_owned(), ..Rows::default() }, split)
}

/// What is said at the revision that the key `key` says beside it.
///
/// # Errors
/// It is there, and has none; or it says another one itself.
pub fn at_revision(said: &Path, revision: Option<&str>, key: &str) -> Result<PathBuf, Error> {
    let Some(revision) = revision else { return Ok(said.to_owned()) };
    let path = said.display();
    match said.exists() {
        // What every recipe says.
        true if revision == "main" => Ok(said.to_owned()),
        true => Err(Error::new(format!(
            "`{key} = {revision}` has no effect on {path}, which is there; remove it"
        ))),
        false if path.to_string().contains('@') => {
            Err(Error::new(format!("`{key} = {revision}` and {path} both say a revision; keep one")))
        }
        false => Ok(format!("{path}@{revision}").into()),
    }
}

impl Config {
    /// The same with the commits that its names are now, or were in the checkpoint that it goes on from: then they mean
    /// the same for ever, and so does what the run writes of them. What is not there is downloaded.
    ///
    /// # Errors
    /// There is no such model or data set.
    pub fn pinned(mut self) -> Result<Self, Error> {
        let saved = output::to_resume(&self)?.and_then(|path| checkpoint::saved(&path).ok());
        let was = |of: fn(&Config) -> Option<&Path>| saved.as_ref().and_then(of).map(Path::to_owned);
        let model = |said: &Path, was: Option<PathBuf>| -> Result<PathBuf, Error> {
            let asked = as_it_was(Kind::Model, said, was);
            Ok(told("model", said, duel_hub::model(&asked)?.said))
        };
        let said = at_revision(&self.model, self.model_revision.take().as_deref(), "model_revision")?;
        self.model = model(&said, was(|c| Some(&c.model)))?;
        if let Some(said) = &self.ref_model {
            self.ref_model = Some(model(said, was(|c| c.ref_model.as_deref()))?);
        }
        if let Some(said) = self.judge.as_deref().and_then(|judge| judge.strip_prefix("model:")) {
            let was = was(|c| c.judge.as_deref()?.strip_prefix("model:").map(Path::new));
            self.judge = Some(format!("model:{}", model(Path::new(said), was)?.display()));
        }
        let own = self.eval_dataset.as_ref() == Some(&self.dataset);
        let train = if let Some(mixture) = &mut self.datasets {
            pin(mixture, saved.as_ref().and_then(|c| c.datasets.as_ref()), "dataset", "train")?;
            self.dataset = mixture.name();
            self.dataset.clone()
        } else {
            let said =
                at_revision(&self.dataset, self.dataset_revision.take().as_deref(), "dataset_revision")?;
            self.dataset = as_it_was(Kind::Dataset, &said, was(|c| Some(&c.dataset)));
            let asked = self.rows(&self.dataset, &self.dataset_train_split);
            told("dataset", &said, files(&asked, "train")?.name().to_owned())
        };
        if let Some(mixture) = &mut self.eval_datasets {
            let before = saved.as_ref().and_then(|c| c.eval_datasets.as_ref());
            pin(mixture, before, "eval_dataset", "test")?;
            self.eval_dataset = Some(mixture.name());
        } else {
            self.eval_dataset = match self.eval_dataset.take() {
                // Rows that are held out are in the same files.
                Some(_) if self.test_split_size.is_some() => Some(train.clone()),
                Some(_) if own => Some(self.eval_split(&self.dataset)?.name().to_owned()),
                Some(said) => {
                    let asked = as_it_was(Kind::Dataset, &said, was(|c| c.eval_dataset.as_deref()));
                    Some(told("eval_dataset", &said, self.eval_split(&asked)?.name().to_owned()))
                }
                None => None,
            };
        }
        self.dataset = train;
        Ok(self)
    }

    /// The files of the rows that are learned from, and of those that are evaluated on: rows that are held out are
    /// counted once for both.
    ///
    /// # Errors
    /// Those of [`files`].
    pub fn all_files(&self) -> Result<(Files, Option<Files>), Error> {
        let all = self.undivided()?;
        match self.test_split_size {
            Some(size) => self.split_off(all, size).map(|(train, eval)| (train, Some(eval))),
            None => Ok((all, self.apart()?)),
        }
    }

    /// The files of the rows that are learned from.
    ///
    /// # Errors
    /// Those of [`files`].
    pub fn train_files(&self) -> Result<Files, Error> {
        match self.test_split_size {
            Some(_) => Ok(self.all_files()?.0),
            None => self.undivided(),
        }
    }

    /// Those before some are held out.
    fn undivided(&self) -> Result<Files, Error> {
        match &self.datasets {
            None => {
                let all = files(&self.rows(&self.dataset, &self.dataset_train_split), "train")?;
                Ok(all.in_form(self.form_of_rows()?))
            }
            Some(mixture) => mixed(mixture, "train", self.seed, u64::MAX - 1),
        }
    }

    /// What columns are called.
    fn form_of_rows(&self) -> Result<Form, Error> {
        let columns = self.columns.as_ref().map(Called::columns).transpose()?;
        Ok(Form::Named(columns.unwrap_or_default()))
    }

    /// What is learned from and what is evaluated on, of which there is `size`.
    fn split_off(&self, all: Files, size: f64) -> Result<(Files, Files), Error> {
        let rows = all.count()?;
        let held = if size < 1.0 { (rows as f64 * size).ceil() } else { size } as usize;
        if held == 0 || held >= rows {
            return Err(Error::new(format!(
                "{}: `test_split_size = {size}` of {rows} rows leaves none to learn from, or to evaluate on",
                all.name().display()
            )));
        }
        let held = drawn(rows, held, self.seed, u64::MAX);
        Ok((all.clone().keeping(rows, |row| !held[row]), all.keeping(rows, |row| held[row])))
    }

    /// The files of the rows that are evaluated on.
    ///
    /// # Errors
    /// Those of [`files`].
    pub fn eval_files(&self) -> Result<Option<Files>, Error> {
        match self.test_split_size {
            Some(_) => Ok(self.all_files()?.1),
            None => self.apart(),
        }
    }

    /// Those that are no part of the rows that are learned from.
    fn apart(&self) -> Result<Option<Files>, Error> {
        match (&self.eval_datasets, &self.eval_dataset) {
            (Some(mixture), _) => mixed(mixture, "test", self.seed, u64::MAX / 2).map(Some),
            (None, name) => name.as_ref().map(|name| self.eval_split(name)).transpose(),
        }
    }

    /// The split of a data set that is evaluated on.
    fn eval_split(&self, name: &Path) -> Result<Files, Error> {
        let found = files(&self.rows(name, &self.dataset_test_split), "test")?;
        Ok(found.in_form(self.form_of_rows()?))
    }

    /// A split of a data set. What is said of `dataset` is said of it in whatever place it stands.
    fn rows(&self, name: &Path, split: &str) -> Rows {
        let own = name == self.dataset;
        let data_files = self.data_files.iter().filter(|_| own).flat_map(Names::patterns);
        Rows {
            name: name.to_owned(),
            config: self.dataset_config.clone().filter(|_| own),
            split: split.to_owned(),
            data_files: data_files.collect(),
        }
    }
}

impl Entry {
    /// Its files; of a split that is `usual` where it says none.
    fn files(&self, usual: &str) -> Result<Files, Error> {
        let asked = Rows {
            name: self.path.clone(),
            config: self.config.clone(),
            split: self.split.clone().unwrap_or_else(|| usual.into()),
            data_files: self.data_files.iter().flat_map(Names::patterns).collect(),
        };
        // What `datasets` calls the only split of a file, and recipes say of files to evaluate on.
        let of_file = asked.split == "train";
        files(&asked, if of_file { "train" } else { usual })
    }
}

/// Gives data sets the commits that their names are now, or that they had `before`.
fn pin(mixture: &mut Mixture, before: Option<&Mixture>, what: &str, usual: &str) -> Result<(), Error> {
    for (i, entry) in mixture.0.iter_mut().enumerate() {
        let was = before.and_then(|all| Some(all.0.get(i)?.path.clone()));
        entry.path = as_it_was(Kind::Dataset, &entry.path, was);
        entry.path = told(what, &entry.path, entry.files(usual)?.name().to_owned());
    }
    Ok(())
}

/// The files of several data sets, and how much of each is read: what is drawn by the seed and a number, `numbered` and
/// below.
fn mixed(mixture: &Mixture, usual: &str, seed: u64, numbered: u64) -> Result<Files, Error> {
    let mut all = Vec::new();
    for entry in &mixture.0 {
        let found = entry.files(usual)?.in_form(entry.form()?);
        let whole = entry.fraction.or(entry.weight).is_none() && entry.samples.or(entry.first).is_none();
        let count = if whole { 0 } else { found.count()? };
        all.push((entry, found, count, whole));
    }
    // As large as fractions, in their sum, let the whole be.
    let fractions: f64 = mixture.0.iter().filter_map(|entry| entry.fraction).sum();
    let fraction = |(entry, _, count, _): &(&Entry, Files, usize, bool)| {
        Some(*count as f64 / (entry.fraction? / fractions))
    };
    let total = all.iter().filter_map(fraction).fold(f64::INFINITY, f64::min);
    let mut read = Vec::new();
    for (i, (entry, found, count, whole)) in all.into_iter().enumerate() {
        if whole {
            read.push(found);
            continue;
        }
        let (rows, first) = match (entry.fraction, entry.weight, entry.samples, entry.first) {
            (Some(share), ..) => ((share / fractions * total).round_ties_even() as usize, true),
            (_, Some(weight), ..) => ((count as f64 * weight) as usize, false),
            (_, _, Some(rows), _) => (rows, false),
            (_, _, _, first) => (first.unwrap_or(count).min(count), true),
        };
        if rows > count || rows == 0 {
            return Err(Error::new(format!(
                "the data set {}: {rows} rows are asked for and it has {count}",
                entry.path.display()
            )));
        }
        let picked = drawn(count, rows, seed, numbered - i as u64);
        read.push(found.keeping(count, |row| if first { row < rows } else { picked[row] }));
    }
    Ok(Files::joined(mixture.name(), read)?)
}

/// Which of `count` rows are drawn, `rows` of them, by the seed and a number of their own.
fn drawn(count: usize, rows: usize, seed: u64, number: u64) -> Vec<bool> {
    let mut picked = vec![false; count];
    order(count, seed, number, true).iter().take(rows).for_each(|&row| picked[row as usize] = true);
    picked
}

/// What is said, or the same at the commit that it `was`, where no revision is said.
fn as_it_was(kind: Kind, said: &Path, was: Option<PathBuf>) -> PathBuf {
    let parsed = |path: &Path| Name::parse(kind, path.to_str()?);
    let same = |was: &PathBuf| match (parsed(said), parsed(was)) {
        (Some(now), Some(was)) => now.revision.is_none() && now.id == was.id && was.is_commit(),
        _ => false,
    };
    was.filter(|was| !said.exists() && same(was)).unwrap_or_else(|| said.to_owned())
}

/// Says which commit a name is.
fn told(what: &str, said: &Path, is: PathBuf) -> PathBuf {
    if said != is {
        say!("{what} {} is {}", said.display(), is.display());
    }
    is
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    /// What a configuration names is found without reading rows, whatever stands beside it.
    #[test]
    fn all_that_is_named_is_pinned() {
        let dir = folder("pinned");
        std::fs::write(dir.join("broken.jsonl"), "{").unwrap();
        let pinned = |rows: &str| {
            let c = config(&dir, rows);
            Config { model: dir.clone(), ..c }.pinned().map_err(|e| e.to_string())
        };
        let c = pinned("dataset = 'DIR/broken.jsonl'\ntest_split_size = 0.5").unwrap();
        assert_eq!(c.eval_dataset, Some(dir.join("broken.jsonl")));
        assert!(c.all_files().is_err());
        let beside = |eval: &str| pinned(&format!("datasets = ['DIR/a.jsonl']\neval_dataset = '{eval}'"));
        assert_eq!(beside("DIR/b.jsonl").unwrap().eval_dataset, Some(dir.join("b.jsonl")));
        let mixed = "dataset = 'DIR/a.jsonl'\neval_datasets = ['DIR/b.jsonl', 'DIR/c.jsonl']";
        assert_eq!(pinned(mixed).unwrap(), {
            let c = config(&dir, mixed);
            Config { model: dir.clone(), ..c }
        });
        let e = beside("DIR").unwrap_err();
        assert!(e.contains("has no split test"), "{e}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// A folder with files of 10, 20 and 40 rows.
    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("duel-rows-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (file, rows) in [("a", 10), ("b", 20), ("c", 40)] {
            let line = |i| format!("{{\"prompt\": \"{i}\", \"chosen\": \"y\", \"rejected\": \"n\"}}\n");
            let lines: String = (0..rows).map(line).collect();
            std::fs::write(dir.join(format!("{file}.jsonl")), lines).unwrap();
        }
        dir
    }

    fn config(dir: &Path, rows: &str) -> Config {
        let text = format!("model = 'm'\n{}", rows.replace("DIR", &dir.display().to_string()));
        Options::parse(&text).and_then(Options::resolve).unwrap_or_else(|e| panic!("{rows}: {e}"))
    }

    #[test]
    fn as_much_of_each_is_read_as_is_asked_for() {
        let dir = folder("mixture");
        let counts = |of: [&str; 3]| {
            let entry =
                |(name, much): (&str, &str)| format!("[[datasets]]\npath = 'DIR/{name}.jsonl'\n{much}\n");
            let rows: String = ["a", "b", "c"].into_iter().zip(of).map(entry).collect();
            config(&dir, &rows).train_files().and_then(|files| Ok(files.count()?)).map_err(|e| e.to_string())
        };
        assert_eq!(counts(["", "", ""]), Ok(70));
        assert_eq!(counts(["weight = 0.55", "samples = 3", "first = 100"]), Ok(5 + 3 + 40));
        // Files by what `datasets` calls their format.
        let format =
            "[[datasets]]\npath = 'json'\ndata_files = ['DIR/a.jsonl', 'DIR/c*.jsonl', 'test=DIR/b.jsonl']";
        assert_eq!(config(&dir, format).train_files().and_then(|files| Ok(files.count()?)).unwrap(), 10 + 40);
        // As TRL has it: min(10 / 0.5, 20 / 0.25, 40 / 0.25) is 20 in all.
        assert_eq!(counts(["fraction = 0.5", "fraction = 0.25", "fraction = 0.25"]), Ok(10 + 5 + 5));
        // Shares of their sum: min(10 / 0.4, 20 / 0.2, 40 / 0.4) is 25 in all; halves go to the even number, 2.5 of 5.
        assert_eq!(counts(["fraction = 2", "fraction = 1", "fraction = 2"]), Ok(10 + 5 + 10));
        assert_eq!(counts(["fraction = 0.8", "fraction = 0.2", "fraction = 0.2"]), Ok(10 + 2 + 2));
        assert!(
            counts(["samples = 11", "", ""]).unwrap_err().contains("11 rows are asked for and it has 10")
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Data sets that are evaluated on are read as those that are learned from, and rows that are drawn are others.
    #[test]
    fn several_are_evaluated_on() {
        let dir = folder("evaluated");
        let half = "[[datasets]]\npath = 'DIR/c.jsonl'\nweight = 0.5\n[[eval_datasets]]\npath = 'DIR/c.jsonl'\nweight = 0.5";
        let c = config(&dir, half);
        let (train, eval) = (rows(&c.train_files().unwrap()), rows(&c.eval_files().unwrap().unwrap()));
        assert_eq!((train.len(), eval.len()), (20, 20));
        assert_ne!(train, eval);
        assert_eq!(c.eval_strategy, crate::config::EvalStrategy::End);
        // As recipes say of a file, whose only split is that.
        let more = "\n[[eval_datasets]]\npath = 'DIR/a.jsonl'\nsplit = 'train'";
        let c = config(&dir, &format!("{half}{more}"));
        let (_, eval) = c.all_files().unwrap();
        assert_eq!(eval.unwrap().count(), Ok(30));
        assert_eq!(Options::parse(&c.to_toml().unwrap()).unwrap().resolve().unwrap(), c);
        let other = config(&dir, &format!("{half}{}", more.replace("'train'", "'dev'")));
        let e = other.eval_files().unwrap_err().to_string();
        assert!(e.contains("a.jsonl: is one file, and has no split dev"), "{e}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Which rows are read, by the prompts' numbers.
    fn rows(files: &Files) -> Vec<usize> {
        let mut rows = Vec::new();
        duel_data::Candidates::each(files, |row| {
            rows.push(row.row);
            Ok(())
        })
        .unwrap();
        rows
    }

    #[test]
    fn what_is_held_out_is_not_learned_from() {
        let dir = folder("held-out");
        let of = |seed: u64, size: &str| {
            let c =
                config(&dir, &format!("dataset = 'DIR/c.jsonl'\nseed = {seed}\ntest_split_size = {size}"));
            (rows(&c.train_files().unwrap()), rows(&c.eval_files().unwrap().unwrap()))
        };
        let (train, eval) = of(1, "0.11");
        assert_eq!((train.len(), eval.len()), (35, 5)); // 4.4, rounded up
        assert!(eval.iter().all(|row| !train.contains(row)));
        assert_eq!(of(1, "0.11"), (train, eval.clone()));
        assert_ne!(of(2, "5").1, eval);
        let c = config(&dir, "dataset = 'DIR/c.jsonl'\ntest_split_size = 0.11");
        assert_eq!(c.all_files().unwrap(), (c.train_files().unwrap(), c.eval_files().unwrap()));
        let c = config(&dir, "dataset = 'DIR/a.jsonl'\ntest_split_size = 10");
        assert!(c.train_files().unwrap_err().to_string().contains("leaves none to learn from"));
        let other = config(&dir, "dataset = 'DIR/a.jsonl'\ncolumns = 'prompt=chosen,chosen=prompt'");
        assert!(other.train_files().unwrap().reading().is_some());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
