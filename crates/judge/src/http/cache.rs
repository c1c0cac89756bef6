//! Replies on disk, by a hash of what was asked: a file that only grows, a line a reply.
//!
//! A line is one write, which the system does not mix with that of another process. What a crash has torn is no JSON,
//! and no reply; the next line begins anew. Where its folder is yet to be made, by a run that begins, the file comes
//! with the first reply.

use super::reply::Reply;
use crate::{Error, Result};
use duel_disk::File;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The file, and where in it each reply begins: replies themselves stay on disk.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    /// To write it and to read it.
    file: Option<(File, BufReader<fs::File>)>,
    places: HashMap<u128, u64>,
}

impl Cache {
    /// Opens the file, and makes it where its folder is there and it is not.
    ///
    /// # Errors
    /// That cannot be done, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut places = HashMap::new();
        let there = folder(path).is_none_or(Path::exists);
        let file = there.then(|| opened(path, &mut places)).transpose()?;
        Ok(Cache { path: path.to_owned(), file, places })
    }

    /// The reply to what has this hash.
    pub fn get(&mut self, key: u128) -> Option<Reply> {
        let at = *self.places.get(&key)?;
        let (_, reader) = self.file.as_mut()?;
        let mut line = Vec::new();
        reader.seek(SeekFrom::Start(at)).ok()?;
        reader.read_until(b'\n', &mut line).ok()?;
        record(&line).filter(|(found, _)| *found == key).map(|(_, reply)| reply)
    }

    /// Adds a reply.
    ///
    /// # Errors
    /// The disk has no room, or fails.
    pub fn put(&mut self, key: u128, reply: &Reply) -> Result<()> {
        let kept = |e: std::io::Error| {
            Error::new(format!("{}: an answer cannot be kept ({e}); make room", self.path.display()))
        };
        let (file, _) = match &mut self.file {
            Some(file) => file,
            none => {
                folder(&self.path).map_or(Ok(()), duel_disk::create_dir_all).map_err(kept)?;
                none.insert(opened(&self.path, &mut self.places)?)
            }
        };
        let line = format!("{}\n", json!({"key": format!("{key:032x}"), "reply": reply.to_json()}));
        let end = file.write_all(line.as_bytes()).and_then(|()| file.stream_position()).map_err(kept)?;
        self.places.insert(key, end - line.len() as u64);
        Ok(())
    }
}

/// The folder of a file, unless it is the one that the process is in.
fn folder(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| !folder.as_os_str().is_empty())
}

/// The file, to write it and to read it, and the places of its replies.
fn opened(path: &Path, places: &mut HashMap<u128, u64>) -> Result<(File, BufReader<fs::File>)> {
    let failed = |e: std::io::Error| Error::new(format!("{}: the cache of answers: {e}", path.display()));
    let mut file = File::append(path).map_err(failed)?;
    let mut reader = BufReader::new(fs::File::open(path).map_err(failed)?);
    let (mut at, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(failed)? as u64;
        if read == 0 {
            return Ok((file, reader));
        }
        if let Some((key, _)) = record(&line) {
            places.insert(key, at);
        }
        at += read;
        if !line.ends_with(b"\n") {
            file.write_all(b"\n").map_err(failed)?;
        }
    }
}

/// The hash and the reply of a line.
fn record(line: &[u8]) -> Option<(u128, Reply)> {
    let value: Value = serde_json::from_slice(line).ok()?;
    Some((u128::from_str_radix(value["key"].as_str()?, 16).ok()?, Reply::from_json(&value["reply"])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        Reply::from_json(&json!({"content": text, "cut": false, "top": [["A", -0.5]]})).unwrap()
    }

    #[test]
    fn a_folder_that_is_not_there_is_made_with_the_first_reply() {
        let folder = std::env::temp_dir().join(format!("duel-answers-folder-{}", std::process::id()));
        let path = folder.join("answers.jsonl");
        let mut cache = Cache::open(&path).unwrap();
        assert_eq!((cache.get(1), folder.exists()), (None, false));
        cache.put(1, &reply("one")).unwrap();
        for mut cache in [cache, Cache::open(&path).unwrap()] {
            assert_eq!(cache.get(1), Some(reply("one")));
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_torn_anywhere_loses_its_last_line_alone() {
        let path = std::env::temp_dir().join(format!("duel-answers-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let texts = ["one", "two\nlines", "three"];
        let mut cache = Cache::open(&path).unwrap();
        for (key, text) in texts.iter().enumerate() {
            assert_eq!(cache.get(key as u128), None);
            cache.put(key as u128, &reply(text)).unwrap();
            assert_eq!(cache.get(key as u128), Some(reply(text)));
        }
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] == b'\n').map(|i| i + 1).collect();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            // A last line that lacks its end alone is whole.
            let kept = ends.iter().filter(|&&end| end - 1 <= cut).count();
            let mut cache = Cache::open(&path).unwrap();
            cache.put(9, &reply("after")).unwrap();
            for mut cache in [cache, Cache::open(&path).unwrap()] {
                for (key, text) in texts.iter().enumerate() {
                    assert_eq!(cache.get(key as u128), (key < kept).then(|| reply(text)), "cut at {cut}");
                }
                assert_eq!(cache.get(9), Some(reply("after")), "cut at {cut}");
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}
