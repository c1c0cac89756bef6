//! What a study has found so far, on disk: a command that was killed anywhere goes on point by point when it is given
//! again, and what it found before has the same bytes.

use duel_disk::File;
use duel_train::Error;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const POINTS: &str = "points.jsonl";

/// The points of a study: a file of JSON lines, of which the first says the settings that all of them are of, and each
/// other one a key and what was found. Nothing in it depends on when it was found.
#[derive(Debug)]
pub struct Study {
    path: PathBuf,
    file: File,
    points: BTreeMap<String, Value>,
}

impl Study {
    /// Opens what was found in the folder `dir`, which is made where there is none. A torn last line is cut off.
    ///
    /// # Errors
    /// It was begun with other settings, which are named; a line is no point; another process works in it; or it cannot
    /// be used.
    pub fn open(dir: &Path, settings: &Map<String, Value>) -> Result<Self, Error> {
        let path = dir.join(POINTS);
        let failed = |e: std::io::Error| Error::new(format!("{}: {e}", path.display()));
        duel_disk::create_dir_all(dir).map_err(failed)?;
        let mut file = File::change(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(format!("{}: another command is writing it", path.display())));
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let (mut begun, mut points, mut whole) = (false, BTreeMap::new(), 0);
        // The first line of a study that was killed while it wrote that is a part of an object, too.
        let own = text.first().is_none_or(|byte| *byte == b'{');
        let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| !own || line.ends_with(b"\n"));
        for (number, line) in (1..).zip(lines) {
            let damaged = || {
                Error::new(format!(
                    "{}, line {number}: no point of a study; if the file is another program's, name another folder, and \
                     if it is damaged, remove this line and all after it",
                    path.display()
                ))
            };
            let Ok(Value::Object(said)) = serde_json::from_slice(line) else { return Err(damaged()) };
            if begun {
                let point = said.get("key").and_then(Value::as_str).zip(said.get("found"));
                let (key, found) = point.ok_or_else(damaged)?;
                points.insert(key.to_owned(), found.clone());
            } else {
                same(&said, settings).map_err(|what| Error::new(format!("{} {what}", dir.display())))?;
                begun = true;
            }
            whole += line.len() as u64;
        }
        // What follows is a line that was not finished: it is found again.
        file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole))).map_err(failed)?;
        let mut study = Study { path, file, points };
        if !begun {
            study.write(&Value::Object(settings.clone()))?;
        }
        Ok(study)
    }

    /// What was found at `key`; where nothing was, `find` finds it, and it is on disk before this returns.
    ///
    /// # Errors
    /// Those of `find`, or the disk's.
    pub fn point(&mut self, key: &str, find: impl FnOnce() -> Result<Value, Error>) -> Result<Value, Error> {
        if let Some(found) = self.points.get(key) {
            return Ok(found.clone());
        }
        let found = find()?;
        self.write(&json!({"key": key, "found": found}))?;
        self.points.insert(key.to_owned(), found.clone());
        Ok(found)
    }

    /// Whether something was found at `key`.
    pub fn has(&self, key: &str) -> bool {
        self.points.contains_key(key)
    }

    fn write(&mut self, line: &Value) -> Result<(), Error> {
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        let written = written.and_then(|()| self.file.sync_all());
        written
            .map_err(|e| Error::new(format!("{}: cannot be written ({e}); make room", self.path.display())))
    }
}

/// Whether two studies are of the same settings.
fn same(begun: &Map<String, Value>, now: &Map<String, Value>) -> Result<(), String> {
    let names = begun.keys().chain(now.keys());
    let Some(name) = names.into_iter().find(|name| begun.get(*name) != now.get(*name)) else { return Ok(()) };
    let shown = |of: &Map<String, Value>| of.get(name).map_or("nothing".to_owned(), Value::to_string);
    Err(format!(
        "was begun with another {name} ({}, now {}); set it back, or name another folder",
        shown(begun),
        shown(now)
    ))
}

/// A mark beside what takes long to make: what it is made of, and whether it is whole.
pub struct Mark {
    path: PathBuf,
    of: String,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// There is nothing, or it is made of something else.
    Nothing,
    /// It was begun of the same.
    Begun,
    /// It is whole.
    Done,
}

impl Mark {
    /// The mark in the file `path` of what is made of `of`.
    pub fn of(path: PathBuf, of: impl Into<String>) -> Self {
        Mark { path, of: of.into() }
    }

    /// How far it is; a mark that is damaged is none.
    pub fn stage(&self) -> Stage {
        let text = fs::read(&self.path).unwrap_or_default();
        let Ok(said) = serde_json::from_slice::<Value>(&text) else { return Stage::Nothing };
        match (said["of"] == *self.of, said["done"].as_bool()) {
            (true, Some(true)) => Stage::Done,
            (true, Some(false)) => Stage::Begun,
            _ => Stage::Nothing,
        }
    }

    /// Says that it is begun.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin(&self) -> Result<(), Error> {
        self.write(false)
    }

    /// Says that it is whole.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(&self) -> Result<(), Error> {
        self.write(true)
    }

    fn write(&self, done: bool) -> Result<(), Error> {
        let said = json!({"of": self.of, "done": done});
        Ok(duel_model::write_synced(&self.path, format!("{said}\n").as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(seed: u64) -> Map<String, Value> {
        json!({"seed": seed, "quick": true}).as_object().cloned().unwrap()
    }

    /// A folder of its own for a test.
    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("duel-study-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        dir
    }

    fn bytes(dir: &Path) -> Vec<u8> {
        fs::read(dir.join(POINTS)).unwrap()
    }

    /// Cut anywhere, a study ends with the same bytes, and finds nothing twice that was whole.
    #[test]
    fn what_was_killed_anywhere_goes_on() {
        let dir = folder("killed");
        let found = |i: u64| json!({"reward": 1.0 / (3.0 + i as f64), "n": i});
        let go = |dir: &Path| {
            let mut study = Study::open(dir, &settings(1)).unwrap();
            let mut asked = 0;
            for i in 0..3 {
                let point = study.point(&format!("dpo/{i}"), || {
                    asked += 1;
                    Ok(found(i))
                });
                assert_eq!(point.unwrap(), found(i));
            }
            asked
        };
        assert_eq!(go(&dir), 3);
        let whole = bytes(&dir);
        for length in 0..=whole.len() {
            fs::write(dir.join(POINTS), &whole[..length]).unwrap();
            let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(go(&dir), 3 - lines.saturating_sub(1), "{length} bytes");
            assert_eq!(bytes(&dir), whole, "{length} bytes");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn other_settings_are_another_study() {
        let dir = folder("settings");
        let study = Study::open(&dir, &settings(1)).unwrap();
        let error = Study::open(&dir, &settings(1)).unwrap_err().to_string();
        assert!(error.contains("another command is writing it"), "{error}");
        drop(study);
        let error = Study::open(&dir, &settings(2)).unwrap_err().to_string();
        assert!(error.contains("another seed (1, now 2)"), "{error}");
        let error = Study::open(&dir, &Map::new()).unwrap_err().to_string();
        assert!(error.contains("another seed (1, now nothing)"), "{error}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_that_is_not_understood_is_lost() {
        let dir = folder("foreign");
        drop(Study::open(&dir, &settings(1)).unwrap());
        let own = String::from_utf8(bytes(&dir)).unwrap();
        for (text, line) in [("mine", 1), ("mine\n{}\n", 1), ("[1]\n", 1)] {
            fs::write(dir.join(POINTS), text).unwrap();
            let error = Study::open(&dir, &settings(1)).unwrap_err().to_string();
            assert!(error.contains(&format!("points.jsonl, line {line}: no point")), "{error}");
            assert_eq!(bytes(&dir), text.as_bytes());
        }
        let torn = format!("{own}{{\"key\": \"a\"}}\n{{\"key\": \"b\", \"found\": 1}}\n");
        fs::write(dir.join(POINTS), &torn).unwrap();
        let error = Study::open(&dir, &settings(1)).unwrap_err().to_string();
        assert!(error.contains("points.jsonl, line 2: no point"), "{error}");
        assert_eq!(bytes(&dir), torn.as_bytes());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_cannot_be_found_is_asked_again() {
        let dir = folder("error");
        let mut study = Study::open(&dir, &settings(1)).unwrap();
        assert!(study.point("a", || Err(Error::new("no"))).is_err());
        assert!(!study.has("a"));
        assert_eq!(study.point("a", || Ok(json!(1))).unwrap(), json!(1));
        assert!(study.has("a"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_mark_is_of_what_it_was_made_of() {
        let dir = folder("mark");
        fs::create_dir_all(&dir).unwrap();
        let mark = |of: &str| Mark::of(dir.join("made.json"), of);
        assert_eq!(mark("a").stage(), Stage::Nothing);
        mark("a").begin().unwrap();
        assert_eq!((mark("a").stage(), mark("b").stage()), (Stage::Begun, Stage::Nothing));
        mark("a").finish().unwrap();
        assert_eq!((mark("a").stage(), mark("b").stage()), (Stage::Done, Stage::Nothing));
        fs::write(dir.join("made.json"), "{\"of\":").unwrap();
        assert_eq!(mark("a").stage(), Stage::Nothing);
        fs::remove_dir_all(dir).unwrap();
    }
}
