//! The output, and beside it what of it is whole: a run that was killed continues after the last batch that is.
//!
//! A journal is JSON lines. The first says what the output is made of; each other one, which follows a batch, how many
//! rows of the input are done, how long the output is, and what was counted. On resuming, what the output has beyond
//! the last such line is cut off: a torn line, or rows of a batch that was not done.

use duel_disk::File;
use duel_train::Error;
use serde_json::{Map, Value, json};
use std::fs::TryLockError;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What is counted of the rows that are done, from the first on.
pub trait Counted: Default {
    /// For the journal.
    fn to_json(&self) -> Value;
    /// From the journal.
    fn from_json(value: &Value) -> Option<Self>;
}

/// An output that grows by whole batches: a file that can be continued, or standard output.
pub struct Journal<S> {
    files: Option<Files>,
    /// Rows of the input that are done.
    pub done: u64,
    /// What was counted of those that were done before it was opened.
    pub before: S,
}

struct Files {
    path: PathBuf,
    output: File,
    journal: File,
}

/// The journal of an output.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

impl<S: Counted> Journal<S> {
    /// Opens the output `path` of `duel COMMAND` with its journal, or makes both; without a path it is standard output.
    /// `made_of` is what the output is made of, by names that a user knows.
    ///
    /// # Errors
    /// There is an output without a journal, or one that is made of something else; another process writes it; or the
    /// files cannot be used.
    pub fn open(path: Option<&Path>, command: &str, made_of: &Map<String, Value>) -> Result<Self, Error> {
        let Some(path) = path else {
            return Ok(Journal { files: None, done: 0, before: S::default() });
        };
        let name = beside(path);
        let failed = |e: std::io::Error| Error::new(format!("{}: {e}", path.display()));
        let wrong = |what: &str| Error::new(format!("{}: {what}", path.display()));
        let fresh = !name.exists();
        if fresh && path.metadata().is_ok_and(|m| m.len() > 0) {
            let what = "that could be continued; name another output";
            return Err(wrong(&format!("is there already, and no `duel {command}` {what}")));
        }
        let (mut output, mut journal) =
            (File::change(path).map_err(failed)?, File::change(&name).map_err(failed)?);
        match journal.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(wrong(&format!("another `duel {command}` is writing it")));
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let there = output.metadata().map_err(failed)?.len();
        let mut begun: Option<Map<String, Value>> = None;
        let (mut done, mut length, mut summary) = (0, 0, S::default());
        let (mut line, mut whole) = (Vec::new(), 0);
        let mut reader = BufReader::new(&journal);
        while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
            let value = serde_json::from_slice(&line).ok().filter(|_| line.ends_with(b"\n"));
            let record = match (&begun, value) {
                (None, Some(Value::Object(first))) => {
                    begun = Some(first);
                    Some((0, 0, S::default()))
                }
                (Some(_), Some(value)) => record(&value),
                _ => None,
            };
            // What is torn, or says more than the output has after a crash of the machine, ends what is known.
            let Some((rows, bytes, counted)) = record.filter(|(_, bytes, _)| *bytes <= there) else { break };
            (done, length, summary) = (rows, bytes, counted);
            whole += line.len() as u64;
            line.clear();
        }
        let bound = done > 0;
        match &begun {
            Some(begun) if bound => same(begun, made_of).map_err(|what| wrong(&what))?,
            None if there > 0 => {
                return Err(wrong("its journal is damaged; remove both, or name another output"));
            }
            // Nothing is done yet that another judge could not do as well.
            _ => whole = 0,
        }
        journal.set_len(whole).and_then(|()| journal.seek(SeekFrom::Start(whole))).map_err(failed)?;
        if !bound {
            let line = format!("{}\n", Value::Object(made_of.clone()));
            journal.write_all(line.as_bytes()).map_err(failed)?;
        }
        output.set_len(length).and_then(|()| output.seek(SeekFrom::Start(length))).map_err(failed)?;
        let files = Some(Files { path: path.to_owned(), output, journal });
        Ok(Journal { files, done, before: summary })
    }

    /// Adds the lines of a batch: `rows` more of the input are done, and this is counted of all.
    ///
    /// # Errors
    /// The disk has no room, or fails; or who reads standard output is gone.
    pub fn add(&mut self, rows: u64, lines: &str, summary: &S) -> Result<(), Error> {
        self.done += rows;
        let Some(Files { path, output, journal }) = &mut self.files else {
            let written = std::io::stdout().write_all(lines.as_bytes());
            return written.map_err(|e| Error::new(format!("standard output: {e}")));
        };
        let written = output.write_all(lines.as_bytes()).and_then(|()| output.stream_position());
        let written = written.and_then(|bytes| {
            let record = json!({"rows": self.done, "bytes": bytes, "counted": summary.to_json()});
            journal.write_all(format!("{record}\n").as_bytes())
        });
        written.map_err(|e| Error::new(format!("{}: cannot be written ({e}); make room", path.display())))
    }
}

/// Rows, bytes and counts of a line.
fn record<S: Counted>(value: &Value) -> Option<(u64, u64, S)> {
    Some((value["rows"].as_u64()?, value["bytes"].as_u64()?, S::from_json(&value["counted"])?))
}

/// Whether two outputs are made of the same.
fn same(begun: &Map<String, Value>, now: &Map<String, Value>) -> Result<(), String> {
    let differs = now.iter().find(|(name, value)| begun.get(*name) != Some(*value));
    let Some((name, value)) = differs else { return Ok(()) };
    let was = begun.get(name).map_or("nothing".to_owned(), Value::to_string);
    Err(format!(
        "was begun with another {name} ({was}, now {value}); name another output, or remove it and its .journal"
    ))
}
