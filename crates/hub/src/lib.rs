#![doc = include_str!("../README.md")]

mod cache;
#[cfg(feature = "datasets")]
mod card;
#[cfg(feature = "datasets")]
mod dataset;
#[cfg(feature = "download")]
mod download;
mod error;
#[cfg(feature = "datasets")]
mod glob;
mod hub;
mod model;
mod name;
mod tree;

#[cfg(feature = "datasets")]
pub use dataset::Rows;
#[cfg(feature = "download")]
pub use download::Remote;
pub use error::{Error, Result};
pub use hub::Hub;
pub use name::{Kind, Name};

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};

/// What a name was found as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The name with its commit, which means the same for ever; or the path as it was said.
    pub said: PathBuf,
    /// Where it is.
    pub at: T,
}

/// The one of this process.
static HUB: LazyLock<Hub> = LazyLock::new(Hub::from_env);

/// The folder of the model `said`: that folder, or what the environment's [`Hub`] has by that name.
///
/// # Errors
/// It is a name, and there is no such model.
pub fn model(said: &Path) -> Result<Found<PathBuf>> {
    HUB.model(said)
}

/// The files of rows that are asked for: a file, what is in a folder, or what the environment's [`Hub`] has by a name.
///
/// # Errors
/// There is no such data set, configuration or split.
#[cfg(feature = "datasets")]
pub fn dataset(asked: &Rows) -> Result<Found<Vec<PathBuf>>> {
    HUB.dataset(asked)
}

/// The name and the commit of the model whose files in a cache are in `folder`; `None`: they are none of the Hub's.
pub fn named(folder: &Path) -> Option<(String, String)> {
    cache::of_snapshot(folder)
}

static STOP: OnceLock<fn() -> bool> = OnceLock::new();

/// Ends downloads when `stop` says so, which they ask it all the time. The first that is given stays.
pub fn stop_when(stop: fn() -> bool) {
    STOP.get_or_init(|| stop);
}

impl Hub {
    /// The folder of the model `said`: that folder, or what is there by that name.
    ///
    /// # Errors
    /// It is a name, and there is no such model.
    pub fn model(&self, said: &Path) -> Result<Found<PathBuf>> {
        let name = said.to_str().filter(|_| !said.exists()).and_then(|text| Name::parse(Kind::Model, text));
        let Some(name) = name else { return Ok(Found { said: said.to_owned(), at: said.to_owned() }) };
        let found = self.find(&name, &model::files)?;
        Ok(Found { said: found.name.to_string().into(), at: found.folder })
    }

    /// The files of rows that are asked for: a file, what is in a folder, or what is there by a name.
    ///
    /// # Errors
    /// There is no such data set, configuration or split.
    #[cfg(feature = "datasets")]
    pub fn dataset(&self, asked: &Rows) -> Result<Found<Vec<PathBuf>>> {
        let path = &asked.name;
        let below = |folder: &Path, files: &[String]| files.iter().map(|file| folder.join(file)).collect();
        if path.is_dir() {
            let called =
                path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
            let mut tree = tree::Local::open(path, format!("{}:", path.display()), String::new())?;
            let files = dataset::files(&mut tree, asked, &called.unwrap_or_default())?;
            return Ok(Found { said: path.clone(), at: below(path, &files) });
        }
        let name = path.to_str().filter(|_| !path.exists()).and_then(|text| Name::parse(Kind::Dataset, text));
        let Some(name) = name else {
            if let Some(what) = asked
                .config
                .as_ref()
                .map(|_| "configuration")
                .or((!asked.data_files.is_empty()).then_some("files"))
            {
                return Err(Error::file(
                    path,
                    format!("is one file, and has no {what} to choose; leave that out"),
                ));
            }
            return Ok(Found { said: path.clone(), at: vec![path.clone()] });
        };
        let called = name.id.rsplit('/').next().unwrap_or_default();
        let found = self.find(&name, &|tree| dataset::files(tree, asked, called))?;
        // Beside the rows it was downloaded with what says which they are.
        Ok(Found { said: found.name.to_string().into(), at: below(&found.folder, &found.files) })
    }
}
