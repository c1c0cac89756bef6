//! A file of the Hub in the cache: first under a name that nobody reads, then by what it holds, then where it belongs.

use super::client::{Client, Head, Trouble};
use super::progress::Progress;
use super::{stopped, unwritten};
use crate::error::{Error, Result};
use crate::name::Name;
use duel_disk::File;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fs::{self, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes that are read at a time.
const BLOCK: usize = 1 << 18;

/// How often a file that is not what the Hub says is fetched anew.
const ANEW: usize = 1;

/// A file that is to be fetched.
pub struct Blob<'a> {
    /// Whose it is.
    pub name: &'a Name,
    /// What it is there.
    pub path: &'a str,
    /// Its address.
    pub url: &'a str,
    /// The folder of all content of the repository.
    pub blobs: &'a Path,
    /// What the Hub says of it.
    pub head: &'a Head,
}

impl Blob<'_> {
    /// The file, whole and checked.
    ///
    /// # Errors
    /// It does not come, or what comes is not what the Hub says; or the disk fails.
    pub fn fetch(&self, client: &Client, progress: &mut Progress) -> Result<PathBuf> {
        let is_plain =
            |etag: &&String| etag.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let etag = self.head.etag.as_ref().filter(is_plain).filter(|etag| !etag.starts_with('.'));
        let etag = etag.ok_or_else(|| self.wrong("comes without an ETag that could name it in the cache"))?;
        let whole = self.blobs.join(etag);
        if fs::metadata(&whole).is_ok_and(|there| self.head.size.is_none_or(|size| there.len() == size)) {
            progress.add(self.head.size.unwrap_or_default());
            return Ok(whole);
        }
        duel_disk::create_dir_all(self.blobs).map_err(|e| unwritten(self.blobs, &e))?;
        for anew in 0.. {
            let (partial, mut file) = self.partial(etag)?;
            let came = self.come(client, &mut file, progress);
            let came = came.and_then(|()| {
                file.sync_all().map_err(|e| unwritten(&partial, &e))?;
                self.check(etag, &mut file)
            });
            match came {
                Ok(None) => {
                    duel_disk::rename(&partial, &whole).map_err(|e| unwritten(&whole, &e))?;
                    break;
                }
                // It is of no use to who goes on with it.
                Ok(Some(what)) => {
                    let _ = duel_disk::remove_file(&partial);
                    if anew == ANEW {
                        return Err(self.wrong(&what));
                    }
                    progress.take_back(self.head.size.unwrap_or_default());
                }
                Err(e) => return Err(e),
            }
        }
        Ok(whole)
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(format!("{}: {} {what}", self.name, self.path))
    }

    /// A file `ETAG.duel-NUMBER.incomplete` that no other process has open: one that was begun, or a new one. Its name
    /// tells it from those of other programs, which do not lock theirs.
    fn partial(&self, etag: &str) -> Result<(PathBuf, File)> {
        let begins = format!("{etag}.duel-");
        let begun = fs::read_dir(self.blobs).into_iter().flatten().filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            (name.starts_with(&begins) && name.ends_with(".incomplete")).then_some(path)
        });
        for path in begun {
            let file = File::change(&path).ok();
            if let Some(file) = file.filter(|file| file.try_lock().is_ok()) {
                // Between the two another may have given it its last name.
                if path.exists() {
                    return Ok((path, file));
                }
            }
        }
        loop {
            let path = self.blobs.join(format!("{begins}{:016x}.incomplete", fastrand::u64(..)));
            let made = File::create_new(&path);
            let file = made.map_err(|e| unwritten(&path, &e))?;
            // Who looks for begun ones may have found and locked it meanwhile: it is theirs. Where a file system has no
            // locks, its name is drawn.
            if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                return Ok((path, file));
            }
        }
    }

    /// Reads what is missing of the file until there is all of it.
    fn come(&self, client: &Client, file: &mut File, progress: &mut Progress) -> Result<()> {
        let failed = |e: std::io::Error| self.wrong(&format!("cannot be written ({e}); make room"));
        let mut have = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if self.head.size.is_some_and(|size| have > size) {
            file.set_len(0).map_err(failed)?;
            have = 0;
        }
        progress.add(have);
        let (mut failures, mut block) = (0, vec![0; BLOCK]);
        while self.head.size != Some(have) {
            let before = have;
            let trouble = match self.more(client, file, &mut have, &mut block, progress) {
                Ok(()) => return Ok(()),
                Err(Broken::Disk(e)) => return Err(failed(e)),
                Err(Broken::Lie(what)) => return Err(self.wrong(&what)),
                Err(Broken::Trouble(Trouble::Again(why, after))) => (why, after),
                Err(Broken::Trouble(Trouble::Unreached(why))) => (why, None),
                Err(Broken::Trouble(other)) => return Err(client.failed(self.name, other)),
            };
            // Whoever gives a little each time comes to an end.
            failures = if have > before { 0 } else { failures + 1 };
            if failures == 6 {
                let (why, _) = trouble;
                let what = format!("{}: {why}; that was the last of {failures} tries", self.path);
                return Err(client.failed(self.name, Trouble::Unreached(what)));
            }
            client.pause(failures, trouble.1).map_err(|trouble| client.failed(self.name, trouble))?;
        }
        Ok(())
    }

    /// One request for what is missing; `have` is how much is there.
    fn more(
        &self,
        client: &Client,
        file: &mut File,
        have: &mut u64,
        block: &mut [u8],
        progress: &mut Progress,
    ) -> std::result::Result<(), Broken> {
        let response = client.bytes(self.url, *have).map_err(Broken::Trouble)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let goes_on = response.status() == 206
            && header("content-range")
                .is_some_and(|range| range.trim().starts_with(&format!("bytes {have}-")));
        if *have > 0 && !goes_on {
            // The server began anew, or knows nothing of that place.
            progress.take_back(*have);
            *have = 0;
            file.set_len(0).map_err(Broken::Disk)?;
            if response.status() != 200 {
                return Err(Broken::Trouble(Trouble::Again(
                    "it does not go on where it broke off".into(),
                    None,
                )));
            }
        }
        file.seek(SeekFrom::Start(*have)).map_err(Broken::Disk)?;
        let coming = header("content-length").and_then(|text| text.parse::<u64>().ok());
        if let (Some(coming), Some(size)) = (coming.map(|n| n + *have), self.head.size)
            && coming != size
        {
            return Err(Broken::Lie(format!(
                "comes with {coming} bytes, and the Hub says {size}; try again later"
            )));
        }
        let mut body = response.into_body().into_reader();
        loop {
            if stopped() {
                return Err(Broken::Trouble(Trouble::Stopped));
            }
            let n = match body.read(block) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => return Err(Broken::Trouble(Trouble::Again(format!("it broke off: {e}"), None))),
            };
            if self.head.size.is_some_and(|size| *have + n as u64 > size) {
                return Err(Broken::Lie("comes with more bytes than the Hub says; try again later".into()));
            }
            file.write_all(&block[..n]).map_err(Broken::Disk)?;
            *have += n as u64;
            progress.add(n as u64);
        }
        match self.head.size {
            Some(size) if *have < size => Err(Broken::Trouble(Trouble::Again(
                format!("it broke off after {have} of {size} bytes"),
                None,
            ))),
            _ => Ok(()),
        }
    }

    /// What is wrong with what came, by the hash that its ETag is.
    fn check(&self, etag: &str, file: &mut File) -> Result<Option<String>> {
        let failed = |e: std::io::Error| self.wrong(&format!("cannot be read again: {e}"));
        let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut hash = match etag.len() {
            _ if !etag.bytes().all(|b| b.is_ascii_hexdigit()) => return Ok(None),
            40 => {
                let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                hash.update(format!("blob {length}\0").as_bytes());
                hash
            }
            64 => Context::new(&SHA256),
            _ => return Ok(None),
        };
        file.rewind().map_err(failed)?;
        let mut block = vec![0; BLOCK];
        loop {
            match file.read(&mut block).map_err(failed)? {
                0 => break,
                n => hash.update(&block[..n]),
            }
        }
        let found: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((!found.eq_ignore_ascii_case(etag))
            .then(|| format!("is not what the Hub says: its hash is {found}, not {etag}; try again later")))
    }
}

/// Why a request ended before the file did.
enum Broken {
    Disk(std::io::Error),
    /// The server contradicts itself.
    Lie(String),
    Trouble(Trouble),
}

/// Makes `at`, in the snapshot `folder`, a link to a blob of its repository; or a copy where there are no links.
///
/// # Errors
/// It cannot be made.
pub fn link(blob: &Path, at: &Path, folder: &Path) -> Result<()> {
    let failed = |e: std::io::Error| unwritten(at, &e);
    let parent = at.parent().unwrap_or(folder);
    duel_disk::create_dir_all(parent).map_err(failed)?;
    let up = "../".repeat(2 + parent.strip_prefix(folder).map_or(0, |below| below.components().count()));
    let name = blob.file_name().unwrap_or_default();
    let made = aside(at);
    let linked = duel_disk::link(&Path::new(&up).join("blobs").join(name), &made);
    let made_so = linked.or_else(|_| duel_disk::copy(blob, &made));
    made_so.and_then(|()| duel_disk::rename(&made, at)).map_err(failed)
}

/// A name beside a file that nobody else has.
fn aside(at: &Path) -> PathBuf {
    let mut name = at.file_name().unwrap_or_default().to_owned();
    name.push(format!(".duel-{:016x}.incomplete", fastrand::u64(..)));
    at.with_file_name(name)
}

/// Writes a small file, which is whole or not there.
///
/// # Errors
/// It cannot be written.
pub fn write(at: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: std::io::Error| unwritten(at, &e);
    if let Some(parent) = at.parent() {
        duel_disk::create_dir_all(parent).map_err(failed)?;
    }
    let made = aside(at);
    duel_disk::write_synced(&made, bytes).and_then(|()| duel_disk::rename(&made, at)).map_err(failed)
}
