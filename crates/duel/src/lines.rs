//! Results as JSON lines that only grow: what was done stays, however a run ends, and the same command goes on.

use duel_train::Error;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// A file of results, or standard output.
pub struct Lines {
    out: Box<dyn Write>,
    name: String,
    /// Lines that were there already.
    pub done: usize,
}

impl Lines {
    /// Goes on with the file `path`, or prints where there is none. `work` is what the lines depend on: it stands
    /// beside the file, in `PATH.run.json`, and no other work goes on with it. A line that a crash has torn is cut off.
    ///
    /// # Errors
    /// The file is not of this work, or cannot be written.
    pub fn open(path: Option<&Path>, overwrite: bool, work: &Map<String, Value>) -> Result<Self, Error> {
        let Some(path) = path else {
            return Ok(Lines { out: Box::new(std::io::stdout()), name: "standard output".into(), done: 0 });
        };
        let failed = |e: &dyn Display| Error::new(format!("{}: {e}", path.display()));
        let beside = PathBuf::from(format!("{}.run.json", path.display()));
        if overwrite {
            for old in [path, &beside] {
                match fs::remove_file(old) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&e)),
                    _ => {}
                }
            }
        }
        let (done, whole) = if path.exists() { whole(path).map_err(|e| failed(&e))? } else { (0, 0) };
        match fs::read(&beside) {
            Ok(bytes) => same(&bytes, work).map_err(|what| {
                failed(&format!("{what}; give another --output, or --overwrite to begin anew"))
            })?,
            Err(_) if whole > 0 => {
                return Err(failed(
                    &"is there already, and nothing beside it says that this command made it; give another --output, \
                      or --overwrite to replace it",
                ));
            }
            // In its place before the first line is.
            Err(_) => {
                let text = serde_json::to_string_pretty(work).unwrap_or_default();
                fs::write(&beside, text).map_err(|e| failed(&e))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| failed(&e))?;
        file.set_len(whole).map_err(|e| failed(&e))?;
        Ok(Lines { out: Box::new(file), name: path.display().to_string(), done })
    }

    /// Adds a line, whole, in one write.
    ///
    /// # Errors
    /// The disk or the reader is gone.
    pub fn push(&mut self, line: &Value) -> Result<(), Error> {
        let line = format!("{line}\n");
        let written = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|e| Error::new(format!("{}: cannot be written: {e}", self.name)))
    }
}

/// Whole lines of a file, and the bytes that they are.
fn whole(path: &Path) -> std::io::Result<(usize, u64)> {
    let mut file = BufReader::new(File::open(path)?);
    let (mut lines, mut bytes, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let n = file.read_until(b'\n', &mut line)?;
        if n == 0 || line.last() != Some(&b'\n') {
            return Ok((lines, bytes));
        }
        (lines, bytes) = (lines + 1, bytes + n as u64);
    }
}

/// Whether lines were made by this work, or what is another.
fn same(made_by: &[u8], work: &Map<String, Value>) -> Result<(), String> {
    let Ok(made) = serde_json::from_slice::<Map<String, Value>>(made_by) else {
        return Err("what stands beside it, .run.json, is damaged".into());
    };
    let key = made.keys().chain(work.keys()).find(|key| made.get(*key) != work.get(*key));
    let said = |of: &Map<String, Value>, key: &str| of.get(key).map_or("none".into(), Value::to_string);
    match key {
        None => Ok(()),
        Some(key) => {
            Err(format!("was begun with {key} = {}, and this is {}", said(&made, key), said(work, key)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn lines_go_on_where_they_were_torn() {
        let folder = Folder(std::env::temp_dir().join(format!("duel-lines-{}", std::process::id())));
        fs::create_dir_all(&folder.0).unwrap();
        let path = folder.0.join("out.jsonl");
        let work = |seed: u64| json!({"seed": seed}).as_object().unwrap().clone();
        let open = |seed| Lines::open(Some(&path), false, &work(seed));
        let mut lines = open(1).unwrap();
        (0..3).for_each(|i| lines.push(&json!({"row": i})).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 4]).unwrap();
        let mut lines = open(1).unwrap();
        assert_eq!(lines.done, 2);
        lines.push(&json!({"row": 2})).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let error = |opened: Result<Lines, Error>| opened.err().unwrap().to_string();
        assert!(error(open(2)).contains("was begun with seed = 1, and this is 2; give another --output"));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        fs::remove_file(folder.0.join("out.jsonl.run.json")).unwrap();
        assert!(error(open(1)).contains("nothing beside it says"));
        assert_eq!(Lines::open(Some(&path), true, &work(2)).unwrap().done, 0);
    }
}
