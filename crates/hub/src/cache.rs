//! The folder in which Hugging Face's libraries keep what they downloaded. It is read as it is, and may be read-only.
//!
//! `models--org--name/refs/REVISION` says the commit that a revision was, `snapshots/COMMIT/PATH` are its files: links
//! to `blobs/ETAG`, or files where a system has no links.

use crate::error::{Error, Result};
use crate::name::{Name, is_commit};
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The cache.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// A variable of the environment that says something.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The folder that a variable names, where `~` is the user's own.
fn folder(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(variable(name)?);
    match path.strip_prefix("~") {
        Ok(rest) => variable("HOME").map(|home| Path::new(&home).join(rest)),
        Err(_) => Some(path),
    }
}

/// Hugging Face's folder: `HF_HOME`, or `huggingface` in the user's caches.
pub(crate) fn home() -> PathBuf {
    let caches = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let own = || caches().unwrap_or_else(|| ".cache".into()).join("huggingface");
    folder("HF_HOME").unwrap_or_else(own)
}

impl Cache {
    /// The one that the environment says: `HF_HUB_CACHE`, or `hub` in Hugging Face's folder.
    pub fn from_env() -> Self {
        Cache { root: folder("HF_HUB_CACHE").unwrap_or_else(|| home().join("hub")) }
    }

    /// The one in a folder.
    pub fn at(root: &Path) -> Self {
        Cache { root: root.to_owned() }
    }

    /// The folder of a repository.
    pub fn repository(&self, name: &Name) -> PathBuf {
        self.root.join(name.folder())
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, name: &Name, commit: &str) -> PathBuf {
        self.repository(name).join("snapshots").join(commit)
    }

    /// The file that says which commit a revision is.
    pub fn reference(&self, name: &Name) -> PathBuf {
        self.repository(name).join("refs").join(name.revision())
    }

    /// The commit that a revision is.
    ///
    /// # Errors
    /// The repository or the revision is not there, or what says the commit is damaged.
    pub fn commit(&self, name: &Name) -> Result<String> {
        if name.is_commit() && self.snapshot(name, name.revision()).is_dir() {
            return Ok(name.revision().to_owned());
        }
        let path = self.reference(name);
        match fs::read_to_string(&path) {
            Ok(text) if is_commit(text.trim()) => Ok(text.trim().to_owned()),
            Ok(_) => Err(Error::file(&path, "is damaged: it names no commit; remove it")),
            Err(e)
                if [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::IsADirectory]
                    .contains(&e.kind()) =>
            {
                Err(self.unknown(name))
            }
            Err(e) => Err(Error::file(&path, format!("cannot be read: {e}"))),
        }
    }

    fn unknown(&self, name: &Name) -> Error {
        let (root, kind, id) = (self.root.display(), name.kind, &name.id);
        if !self.repository(name).is_dir() {
            return Error::new(format!(
                "{id}: there is no such file or folder, and no {kind} of that name in Hugging Face's cache {root}"
            ));
        }
        let revision = name.revision();
        match self.revisions(name).join(", ") {
            none if none.is_empty() => {
                Error::new(format!("{id}: the cache {root} has no revision of it that is whole"))
            }
            there => {
                Error::new(format!("{id}: the cache {root} has no revision {revision} of it; it has {there}"))
            }
        }
    }

    /// The revisions of a repository, by their names, and commits that none names.
    fn revisions(&self, name: &Name) -> Vec<String> {
        let folder = self.repository(name);
        let mut all = below(&folder.join("refs")).unwrap_or_default();
        let named: Vec<String> =
            all.iter().filter_map(|name| fs::read_to_string(folder.join("refs").join(name)).ok()).collect();
        let snapshots = fs::read_dir(folder.join("snapshots")).into_iter().flatten();
        let mut commits: Vec<String> = snapshots
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|commit| named.iter().all(|named| named.trim() != commit))
            .collect();
        commits.sort();
        all.extend(commits);
        all
    }
}

/// The name and commit of the repository whose snapshot a folder is; `None`: it is none.
pub(crate) fn of_snapshot(folder: &Path) -> Option<(String, String)> {
    let folder = std::path::absolute(folder).ok()?;
    let text = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let commit = text(&folder).filter(|name| is_commit(name))?;
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let id = text(snapshots.parent()?)?.strip_prefix("models--")?.replacen("--", "/", 1);
    Some((id, commit))
}

/// Files below a folder by their paths from it on, with `/` between, in order; links are files, but for those that lead
/// to folders, which may lead back.
///
/// # Errors
/// A folder cannot be read.
pub(crate) fn below(folder: &Path) -> Result<Vec<String>> {
    fn add(folder: &Path, before: &str, all: &mut Vec<String>) -> Result<()> {
        let failed = |e| Error::file(folder, format!("cannot be read: {e}"));
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let (path, name) = (entry.path(), format!("{before}{name}"));
            match entry.file_type().map_err(failed)?.is_dir() {
                true => add(&path, &format!("{name}/"), all)?,
                false if path.is_dir() => {}
                false => all.push(name),
            }
        }
        Ok(())
    }
    let mut all = Vec::new();
    add(folder, "", &mut all)?;
    all.sort();
    Ok(all)
}
