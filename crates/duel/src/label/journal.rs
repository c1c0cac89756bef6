//! The output, and beside it what of it is whole: a run that was killed continues after the last batch that is.
//!
//! A journal is JSON lines. The first says what the output is made of; each other one, which follows a batch, how many
//! rows of the input are done, how long the output is, and what was counted. On resuming, what the output has beyond
//! the last such line is cut off: a torn line, or rows of a batch that was not done.

use super::summary::Summary;
use duel_train::Error;
use serde_json::{Map, Value, json};
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// An output that grows by whole batches.
pub struct Journal {
    path: PathBuf,
    output: File,
    journal: File,
    /// Rows of the input that are done.
    pub done: u64,
    /// What was counted of them.
    pub summary: Summary,
}

/// The journal of an output.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

impl Journal {
    /// Opens the output `path` with its journal, or makes both; `made_of` is what the output is made of, by names that
    /// a user knows.
    ///
    /// # Errors
    /// There is an output without a journal, or one that is made of something else; another process writes it; or the
    /// files cannot be used.
    pub fn open(path: &Path, made_of: &Map<String, Value>) -> Result<Self, Error> {
        let name = beside(path);
        let failed = |e: std::io::Error| Error::new(format!("{}: {e}", path.display()));
        let wrong = |what: &str| Error::new(format!("{}: {what}", path.display()));
        let fresh = !name.exists();
        if fresh && path.metadata().is_ok_and(|m| m.len() > 0) {
            return Err(wrong(
                "is there already, and no `duel label` that could be continued; name another output",
            ));
        }
        let open = |path: &Path| {
            let mut options = File::options();
            options.create(true).truncate(false).read(true).write(true).open(path)
        };
        let (mut output, mut journal) = (open(path).map_err(failed)?, open(&name).map_err(failed)?);
        match journal.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(wrong("another `duel label` is writing it")),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let there = output.metadata().map_err(failed)?.len();
        let mut begun: Option<Map<String, Value>> = None;
        let (mut done, mut length, mut summary) = (0, 0, Summary::default());
        let (mut line, mut whole) = (Vec::new(), 0);
        let mut reader = BufReader::new(&journal);
        while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
            let value = serde_json::from_slice(&line).ok().filter(|_| line.ends_with(b"\n"));
            let record = match (&begun, value) {
                (None, Some(Value::Object(first))) => {
                    begun = Some(first);
                    Some((0, 0, Summary::default()))
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
            writeln!(journal, "{}", Value::Object(made_of.clone())).map_err(failed)?;
        }
        output.set_len(length).and_then(|()| output.seek(SeekFrom::Start(length))).map_err(failed)?;
        Ok(Journal { path: path.to_owned(), output, journal, done, summary })
    }

    /// Adds the lines of a batch: `rows` more of the input are done.
    ///
    /// # Errors
    /// The disk has no room, or fails.
    pub fn add(&mut self, rows: u64, lines: &str, summary: &Summary) -> Result<(), Error> {
        self.done += rows;
        self.summary = summary.clone();
        let written = self.output.write_all(lines.as_bytes()).and_then(|()| self.output.stream_position());
        let written = written.and_then(|bytes| {
            let record = json!({"rows": self.done, "bytes": bytes, "counted": summary.to_json()});
            self.journal.write_all(format!("{record}\n").as_bytes())
        });
        written
            .map_err(|e| Error::new(format!("{}: cannot be written ({e}); make room", self.path.display())))
    }
}

/// Rows, bytes and counts of a line.
fn record(value: &Value) -> Option<(u64, u64, Summary)> {
    Some((value["rows"].as_u64()?, value["bytes"].as_u64()?, Summary::from_json(&value["counted"])?))
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
