//! What a configuration names, on disk: folders of models and files of rows, which may be on Hugging Face's Hub.

use super::output;
use crate::Error;
use crate::checkpoint;
use crate::config::{Config, Names};
use duel_data::Files;
use duel_hub::{Kind, Name, Rows};
use std::path::{Path, PathBuf};

/// The folder of the model `said`: that folder, or what is in the cache or on the Hub by that name.
///
/// # Errors
/// It is a name, and there is no such model.
pub fn folder(said: &Path) -> Result<PathBuf, Error> {
    Ok(duel_hub::model(said)?.at)
}

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
        let said = at_revision(&self.dataset, self.dataset_revision.take().as_deref(), "dataset_revision")?;
        self.dataset = as_it_was(Kind::Dataset, &said, was(|c| Some(&c.dataset)));
        if own {
            self.eval_dataset = Some(self.dataset.clone());
        } else if let Some(other) = &self.eval_dataset {
            self.eval_dataset = Some(as_it_was(Kind::Dataset, other, was(|c| c.eval_dataset.as_deref())));
        }
        let train = told("dataset", &said, self.train_files()?.name().to_owned());
        if let Some(files) = self.eval_files()? {
            let said = self.eval_dataset.take().filter(|_| !own);
            let name = files.name().to_owned();
            self.eval_dataset = Some(said.map_or(name.clone(), |said| told("eval_dataset", &said, name)));
        }
        self.dataset = train;
        Ok(self)
    }

    /// The files of the rows that are learned from.
    ///
    /// # Errors
    /// Those of [`files`].
    pub fn train_files(&self) -> Result<Files, Error> {
        files(&self.rows(&self.dataset, &self.dataset_train_split), "train")
    }

    /// The files of the rows that are evaluated on.
    ///
    /// # Errors
    /// Those of [`files`].
    pub fn eval_files(&self) -> Result<Option<Files>, Error> {
        let of = |name: &PathBuf| files(&self.rows(name, &self.dataset_test_split), "test");
        self.eval_dataset.as_ref().map(of).transpose()
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
        eprintln!("{what} {} is {}", said.display(), is.display());
    }
    is
}
