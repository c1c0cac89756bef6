//! Names to snapshots: from the cache, or where that lacks them from the Hub.

use crate::cache::{Cache, variable};
#[cfg(feature = "download")]
use crate::error::Why;
use crate::error::{Error, Result};
use crate::name::{Kind, Name};
use crate::tree::{Local, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where repositories are looked for.
pub struct Hub {
    pub(crate) cache: Cache,
    /// The variable that says that nothing is downloaded, of models and of data sets.
    offline: [Option<&'static str>; 2],
    /// The commits that names were in this process: they stay so.
    commits: Mutex<BTreeMap<Name, String>>,
    /// The data sets at a commit that are taken from the cache without asking whether it has all of them.
    taken: Mutex<BTreeSet<Name>>,
    #[cfg(feature = "download")]
    remote: Result<crate::download::Remote>,
}

/// A repository's files at a commit.
pub(crate) struct Snapshot {
    /// The name with the commit.
    pub name: Name,
    /// Their folder.
    pub folder: PathBuf,
    /// Those that were chosen, by their paths.
    #[cfg_attr(not(feature = "datasets"), expect(dead_code, reason = "models are read as folders"))]
    pub files: Vec<String>,
}

/// Which files of a repository are needed.
pub(crate) type Choose<'c> = &'c dyn Fn(&mut dyn Tree) -> Result<Vec<String>>;

/// Whether a variable of the environment says yes.
fn says_yes(name: &str) -> bool {
    let yes = ["1", "on", "yes", "true"];
    variable(name)
        .and_then(|value| value.into_string().ok())
        .is_some_and(|v| yes.contains(&&*v.to_ascii_lowercase()))
}

impl Hub {
    /// What the environment says: the cache (`HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`), whether anything is
    /// downloaded (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`, `HF_DATASETS_OFFLINE`), from where (`HF_ENDPOINT`), and as
    /// whom (`HF_TOKEN`, `HF_TOKEN_PATH`).
    pub fn from_env() -> Self {
        let of_all = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| says_yes(name));
        let of_rows = ["HF_DATASETS_OFFLINE"].into_iter().find(|name| says_yes(name));
        Hub {
            cache: Cache::from_env(),
            offline: [of_all, of_all.or(of_rows)],
            commits: Mutex::default(),
            taken: Mutex::default(),
            #[cfg(feature = "download")]
            remote: crate::download::Remote::from_env(),
        }
    }

    /// The cache in a folder alone.
    pub fn offline(cache: &Path) -> Self {
        Hub {
            cache: Cache::at(cache),
            offline: [Some("HF_HUB_OFFLINE"); 2],
            commits: Mutex::default(),
            taken: Mutex::default(),
            #[cfg(feature = "download")]
            remote: Err(Error::new("nothing is downloaded")),
        }
    }

    /// The cache in a folder, and what it lacks from a server.
    #[cfg(feature = "download")]
    pub fn online(cache: &Path, remote: crate::Remote) -> Self {
        Hub { offline: [None; 2], remote: Ok(remote), ..Hub::offline(cache) }
    }

    /// A repository with the files that `choose` chooses.
    ///
    /// # Errors
    /// It is neither in the cache nor to be had from the Hub, or one of its files is not.
    pub(crate) fn find(&self, name: &Name, choose: Choose<'_>) -> Result<Snapshot> {
        let known = self.commits.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let asked = known.map_or_else(|| name.clone(), |commit| name.at(&commit));
        let found = self.look(&asked, choose)?;
        let commit = found.name.revision().to_owned();
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), commit);
        Ok(found)
    }

    fn look(&self, name: &Name, choose: Choose<'_>) -> Result<Snapshot> {
        let cached = self.cached(name, choose);
        #[cfg(feature = "download")]
        if self.offline[usize::from(name.kind == Kind::Dataset)].is_none() {
            return self.ask(name, choose, cached);
        }
        if let Ok(found) = &cached
            && self.is_new(&found.name)
        {
            eprintln!("note: {} is taken as the cache has it{}", found.name, Self::PART);
        }
        cached
    }

    /// What is said of a data set that was not asked for.
    const PART: &str = ": files of it that were not downloaded are not read";

    /// Whether a data set is taken from the cache for the first time; a model says itself what it lacks.
    fn is_new(&self, name: &Name) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        name.kind == Kind::Dataset && taken.insert(name.clone())
    }

    /// What the Hub has, or what is `cached` where it does not give that.
    #[cfg(feature = "download")]
    fn ask(&self, name: &Name, choose: Choose<'_>, cached: Result<Snapshot>) -> Result<Snapshot> {
        let is_taken = || self.taken.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
        // A commit is what it was, and of a model it is seen whether all of it is there.
        if cached.is_ok() && name.is_commit() && (name.kind == Kind::Model || is_taken()) {
            return cached;
        }
        match (self.remote.as_ref().map_err(Clone::clone)?.pull(&self.cache, name, choose), cached) {
            (Err(e), Ok(found)) if e.why != Why::Other => {
                let part = if self.is_new(&found.name) { Self::PART } else { "" };
                eprintln!("note: {e}; {} is taken, which is in the cache{part}", found.name);
                Ok(found)
            }
            (Err(e), Err(lacks)) if e.why == Why::Unreached => {
                let e = e.to_string();
                let why = e.split_once(": ").map_or(e.as_str(), |(_, why)| why);
                Err(Error::new(format!("{lacks}; {why}")))
            }
            (pulled, _) => pulled,
        }
    }

    /// What the cache has of a repository, if that is all that is needed.
    fn cached(&self, name: &Name, choose: Choose<'_>) -> Result<Snapshot> {
        let cure = self.cure(name);
        let commit = self.cache.commit(name).map_err(|e| Error::new(format!("{e}{cure}")))?;
        let folder = self.cache.snapshot(name, &commit);
        if !folder.is_dir() {
            let what = "is a commit that the cache has no files of";
            return Err(Error::new(format!("{name}: {} {what}{cure}", folder.display())));
        }
        let called = format!("{name}: its snapshot in the cache, {},", folder.display());
        let mut tree = Local::open(&folder, called, cure)?;
        let files = choose(&mut tree)?;
        files.iter().try_for_each(|path| tree.file(path).map(drop))?;
        Ok(Snapshot { name: name.at(&commit), folder, files })
    }

    /// What to do about what the cache lacks.
    fn cure(&self, name: &Name) -> String {
        let of_rows = if name.kind == Kind::Dataset { " --repo-type dataset" } else { "" };
        let revision =
            name.revision.as_ref().map_or(String::new(), |revision| format!(" --revision {revision}"));
        let command = format!("`hf download {}{of_rows}{revision}`", name.id);
        match self.offline[usize::from(name.kind == Kind::Dataset)] {
            Some(variable) => format!(
                "; {variable} is set, so that nothing is downloaded: unset it, or run {command} where there is a network"
            ),
            None if cfg!(feature = "download") => String::new(),
            None => format!(
                "; this program was built without downloads (the cargo feature `download`): run {command}"
            ),
        }
    }
}
