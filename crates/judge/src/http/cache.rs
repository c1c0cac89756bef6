//! Replies on disk, by a hash of what was asked: a file that only grows, a line a reply.
//!
//! A line is one write, which the system does not mix with that of another process. What a crash has torn is no JSON,
//! and no reply; the next line begins anew.

use super::reply::Reply;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The file, and where in it each reply begins: replies themselves stay on disk.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    file: File,
    reader: BufReader<File>,
    places: HashMap<u128, u64>,
}

impl Cache {
    /// Opens the file, and makes it where it is not there.
    ///
    /// # Errors
    /// That cannot be done, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| Error::new(format!("{}: the cache of answers: {e}", path.display()));
        let mut file = File::options().create(true).append(true).open(path).map_err(failed)?;
        let mut reader = BufReader::new(File::open(path).map_err(failed)?);
        let mut places = HashMap::new();
        let (mut at, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)? as u64;
            if read == 0 {
                break;
            }
            if let Some((key, _)) = record(&line) {
                places.insert(key, at);
            }
            at += read;
            if !line.ends_with(b"\n") {
                file.write_all(b"\n").map_err(failed)?;
            }
        }
        Ok(Cache { path: path.to_owned(), file, reader, places })
    }

    /// The reply to what has this hash.
    pub fn get(&mut self, key: u128) -> Option<Reply> {
        let at = *self.places.get(&key)?;
        let mut line = Vec::new();
        self.reader.seek(SeekFrom::Start(at)).ok()?;
        self.reader.read_until(b'\n', &mut line).ok()?;
        record(&line).filter(|(found, _)| *found == key).map(|(_, reply)| reply)
    }

    /// Adds a reply.
    ///
    /// # Errors
    /// The disk has no room, or fails.
    pub fn put(&mut self, key: u128, reply: &Reply) -> Result<()> {
        let line = format!("{}\n", json!({"key": format!("{key:032x}"), "reply": reply.to_json()}));
        let end = self.file.write_all(line.as_bytes()).and_then(|()| self.file.stream_position());
        let end = end.map_err(|e| {
            Error::new(format!("{}: an answer cannot be kept ({e}); make room", self.path.display()))
        })?;
        self.places.insert(key, end - line.len() as u64);
        Ok(())
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
