//! What the cache lacks, from the Hub: listed, fetched and checked before it has a name that anyone reads.

mod blob;
mod client;
mod progress;

use crate::STOP;
use crate::cache::{Cache, home, variable};
use crate::error::{Error, Result};
use crate::hub::{Choose, Snapshot};
use crate::name::{Kind, Name, is_commit};
use crate::tree::Tree;
use blob::Blob;
use client::{Client, Trouble};
use progress::Progress;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The Hub, or a server that speaks as it does.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    /// The files of commits, which are not asked for again.
    listings: Mutex<BTreeMap<Name, Vec<Listed>>>,
}

/// Pages of a listing; one has a thousand files.
const PAGES: usize = 1000;

fn stopped() -> bool {
    STOP.get().is_some_and(|stop| stop())
}

impl Remote {
    /// The server at an address, asked with a token, which goes nowhere else.
    ///
    /// # Errors
    /// The address is none of HTTP, or the token is none.
    pub fn new(endpoint: &str, token: Option<&str>) -> Result<Self> {
        Ok(Remote { client: Client::new(endpoint, token)?, listings: Mutex::default() })
    }

    /// As the environment says: `HF_ENDPOINT`, and the token of `HF_TOKEN`, or in the file `HF_TOKEN_PATH` or
    /// `$HF_HOME/token`.
    ///
    /// # Errors
    /// As [`Remote::new`].
    pub fn from_env() -> Result<Self> {
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let file = || {
            let path = variable("HF_TOKEN_PATH").map_or_else(|| home().join("token"), PathBuf::from);
            fs::read_to_string(path).ok()
        };
        let token = text("HF_TOKEN").or_else(file);
        Self::new(&endpoint, token.as_deref().map(str::trim).filter(|token| !token.is_empty()))
    }

    /// The same with another first wait between tries, which doubles.
    pub fn with_backoff(mut self, backoff: Duration) -> Self {
        self.client.backoff = backoff;
        self
    }

    /// Brings the files of a repository that `choose` chooses into the cache, those that it lacks.
    ///
    /// # Errors
    /// The server was not reached, has no such repository or does not give it, or what it sent is not what it says; the
    /// cache cannot be written; or it was stopped.
    pub(crate) fn pull(&self, cache: &Cache, name: &Name, choose: Choose<'_>) -> Result<Snapshot> {
        let commit = self.commit(name)?;
        let at = name.at(&commit);
        // Who was just reached is worth waiting for.
        let files = self.listing(&at, !name.is_commit())?;
        let is_cached = cache.commit(name).is_ok_and(|cached| cached == commit);
        let folder = cache.snapshot(name, &commit);
        let paths = files.iter().map(|file| file.path.clone()).collect();
        let mut tree = OnHub { remote: self, cache, name: &at, folder: folder.clone(), files, paths };
        let chosen = tree.fetch_all(choose).map_err(|e| match name.kind {
            // Rows that are known to be lacking are not left out.
            Kind::Dataset if is_cached => Error::new(e.to_string()),
            _ => e,
        })?;
        // What a revision is says last who reads it: whoever is cut off leaves the one before.
        if !name.is_commit() {
            let reference = cache.reference(name);
            let is_said = fs::read_to_string(&reference).is_ok_and(|text| text == commit);
            if !is_said {
                blob::write(&reference, commit.as_bytes())?;
            }
        }
        Ok(Snapshot { name: at, folder, files: chosen })
    }

    /// The commit that a revision is.
    fn commit(&self, name: &Name) -> Result<String> {
        if name.is_commit() {
            return Ok(name.revision().to_owned());
        }
        // A file that is not there has a commit as well.
        let probe = match name.kind {
            Kind::Model => "config.json",
            Kind::Dataset => "README.md",
        };
        let url = self.client.file(name, probe);
        let found = self.client.again(false, || match self.client.head(&url) {
            Err(Trouble::NoEntry(commit)) => Ok(commit),
            other => Ok(other?.commit),
        });
        let commit =
            found.map_err(|trouble| self.client.failed(name, trouble))?.filter(|commit| is_commit(commit));
        commit.ok_or_else(|| {
            Error::new(format!(
                "{name}: {} does not say a commit (X-Repo-Commit); is HF_ENDPOINT a server of Hugging Face's kind?",
                self.client.endpoint()
            ))
        })
    }

    /// All files at a commit.
    fn listing(&self, name: &Name, patient: bool) -> Result<Vec<Listed>> {
        let listings = || self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = listings().get(name) {
            return Ok(known.clone());
        }
        let mut url = Some(self.client.listing(name));
        let mut all = Vec::new();
        for _ in 0..PAGES {
            let Some(page) = url.take() else { break };
            let got = self.client.again(patient, || self.client.json(&page));
            let (files, next) = got.map_err(|trouble| self.client.failed(name, trouble))?;
            let odd = || Error::new(format!("{name}: {page} is no list of files; is HF_ENDPOINT right?"));
            for file in files.as_array().ok_or_else(odd)?.iter().filter(|file| file["type"] == "file") {
                all.push(Listed::of(file).ok_or_else(odd)?);
            }
            url = next;
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        listings().insert(name.clone(), all.clone());
        Ok(all)
    }
}

/// A file of a listing.
#[derive(Debug, Clone)]
struct Listed {
    path: String,
    size: u64,
}

impl Listed {
    /// `None`: it is no file that could lie in a snapshot.
    fn of(file: &Value) -> Option<Self> {
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let path = file["path"]
            .as_str()
            .filter(|path| path.split('/').all(is_part) && !path.contains(['\\', '\0']))?;
        let size = file["lfs"]["size"].as_u64().or(file["size"].as_u64())?;
        Some(Listed { path: path.to_owned(), size })
    }
}

/// The files of a repository on the Hub, each of which comes into the cache when it is asked for.
struct OnHub<'r> {
    remote: &'r Remote,
    cache: &'r Cache,
    /// At its commit.
    name: &'r Name,
    /// Its snapshot.
    folder: PathBuf,
    files: Vec<Listed>,
    paths: Vec<String>,
}

impl OnHub<'_> {
    /// Whether the snapshot has a file whole.
    fn is_there(&self, path: &str) -> bool {
        let size = self.files.iter().find(|file| file.path == path).map(|file| file.size);
        fs::metadata(self.folder.join(path)).is_ok_and(|there| Some(there.len()) == size)
    }

    /// Those that `choose` chooses, each of which is then there.
    fn fetch_all(&mut self, choose: Choose<'_>) -> Result<Vec<String>> {
        let chosen = choose(self)?;
        let missing: Vec<&String> = chosen.iter().filter(|path| !self.is_there(path)).collect();
        let bytes =
            self.files.iter().filter(|file| missing.contains(&&file.path)).map(|file| file.size).sum();
        let mut progress = Progress::new(self.name, missing.len(), bytes);
        missing.iter().try_for_each(|path| self.fetch(path, &mut progress).map(drop))?;
        Ok(chosen)
    }

    fn fetch(&self, path: &str, progress: &mut Progress) -> Result<PathBuf> {
        let there = self.folder.join(path);
        if self.is_there(path) {
            return Ok(there);
        }
        let client = &self.remote.client;
        let url = client.file(self.name, path);
        let failed = |trouble| client.failed(self.name, trouble);
        let head = client.again(true, || client.head(&url)).map_err(failed)?;
        let blobs = self.cache.repository(self.name).join("blobs");
        let blob = Blob { name: self.name, path, url: &url, blobs: &blobs, head: &head };
        progress.begin(path);
        let whole = blob.fetch(client, progress)?;
        blob::link(&whole, &there, &self.folder)?;
        Ok(there)
    }
}

impl Tree for OnHub<'_> {
    fn paths(&self) -> &[String] {
        &self.paths
    }

    fn file(&mut self, path: &str) -> Result<PathBuf> {
        match self.has(path) {
            true => self.fetch(path, &mut Progress::none()),
            false => Err(self.wrong(&format!("lacks {path}"))),
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(format!("{}: the repository {what}", self.name))
    }
}

/// The error that a file cannot be written.
fn unwritten(path: &Path, e: &std::io::Error) -> Error {
    Error::file(path, format!("cannot be written ({e}); make room, or name another cache in HF_HUB_CACHE"))
}
