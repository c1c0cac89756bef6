//! What models say of rows, a line of JSON each, in a file that only grows: what was scored stays, however it ends.

use duel_data::Dataset;
use duel_disk::File;
use duel_train::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Key of the first line, and the number of this layout.
const FORMAT: (&str, u64) = ("duel_eval", 1);

/// Which of the models says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// The one that is judged.
    Model,
    /// The one that it is compared with.
    Versus,
}

/// What a model says of a row. Lists are of the responses, best first by the row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The source row, from 1.
    pub row: usize,
    /// The model.
    pub of: Of,
    /// Scored tokens.
    pub tokens: Vec<usize>,
    /// A policy's log-probabilities, summed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logps: Option<Vec<f64>>,
    /// The same of its reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ref_logps: Option<Vec<f64>>,
    /// Rewards: a reward model's values, or `beta` times a policy's log-ratios.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards: Option<Vec<f64>>,
    /// How much better the first response is than the last: by rewards, or by log-probabilities where there are none.
    pub difference: f64,
}

impl Record {
    /// What responses are compared by first.
    pub fn scores(&self) -> &[f64] {
        self.rewards.as_deref().or(self.logps.as_deref()).unwrap_or_default()
    }

    /// Whether it is one of `responses`.
    fn fits(&self, responses: usize) -> bool {
        let lists = [&self.logps, &self.ref_logps, &self.rewards];
        let all = self.tokens.len() == responses && self.scores().len() == responses;
        all && lists.into_iter().flatten().all(|list| list.len() == responses)
    }
}

/// The file of the rows; nothing is kept without one.
pub struct Lines {
    path: PathBuf,
    file: Option<File>,
    known: Vec<Record>,
}

impl Lines {
    /// Opens the file of `header` or makes it. A last line without an end was torn by whatever ended an earlier
    /// process, and goes.
    ///
    /// # Errors
    /// The file cannot be read or written, is another one, or was made by other models, rows or settings: what differs
    /// is named.
    pub fn open(path: Option<&Path>, header: &Map<String, Value>) -> Result<Self, Error> {
        let Some(path) = path else {
            return Ok(Lines { path: PathBuf::new(), file: None, known: Vec::new() });
        };
        let failed = |e: std::io::Error| Error::new(format!("{}: cannot be written: {e}", path.display()));
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::new(format!("{}: cannot be read: {e}", path.display()))),
        };
        let mut first = Map::from_iter([(FORMAT.0.to_owned(), Value::from(FORMAT.1))]);
        first.extend(header.clone());
        let first = format!("{}\n", Value::Object(first));
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let known = match whole {
            // A process that ended while it wrote the first line.
            0 if first.as_bytes().starts_with(&bytes) => Vec::new(),
            0 => return Err(foreign(path)),
            _ => read(path, &bytes[..whole], header)?,
        };
        let mut file = File::append(path).map_err(failed)?;
        file.set_len(whole as u64).map_err(failed)?;
        if whole == 0 {
            file.write_all(first.as_bytes()).map_err(failed)?;
        }
        Ok(Lines { path: path.to_path_buf(), file: Some(file), known })
    }

    /// The file, if any.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|_| self.path.as_path())
    }

    /// Takes what is known of the groups of `ds`: a record for each, or `None`.
    ///
    /// # Errors
    /// A record is of a row that the data does not have so.
    pub fn take(&mut self, of: Of, ds: &Dataset) -> Result<Vec<Option<Record>>, Error> {
        let mut records = vec![None; ds.len()];
        let rows: Vec<usize> = ds.groups().map(|group| group.row).collect();
        for record in self.known.extract_if(.., |record| record.of == of) {
            let place = rows.binary_search(&record.row).ok();
            let fits = place.filter(|&i| record.fits(ds.group(i).responses().len()));
            let Some(place) = fits else {
                return Err(Error::new(format!(
                    "{}: row {} is none of the data that this command reads; give another --output, or remove the file",
                    self.path.display(),
                    record.row
                )));
            };
            records[place] = Some(record);
        }
        Ok(records)
    }

    /// Adds records, all in one write.
    ///
    /// # Errors
    /// The disk has no room, or fails; what was added before stays.
    pub fn append(&mut self, records: &[Record]) -> Result<(), Error> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(format!("{}: cannot be written: {e}", self.path.display()))
        };
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record).map_err(|e| failed(&e))?;
            lines.push(b'\n');
        }
        file.write_all(&lines).map_err(|e| failed(&e))
    }
}

/// The records of whole lines.
fn read(path: &Path, bytes: &[u8], header: &Map<String, Value>) -> Result<Vec<Record>, Error> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().and_then(|line| serde_json::from_slice::<Map<String, Value>>(line).ok());
    let first = first.filter(|first| first.get(FORMAT.0) == Some(&FORMAT.1.into()));
    check(path, &first.ok_or_else(|| foreign(path))?, header)?;
    let record = |(i, line): (usize, &[u8])| {
        serde_json::from_slice::<Record>(line).map_err(|e| {
            let (path, line) = (path.display(), i + 2);
            Error::new(format!(
                "{path}, line {line}: is no row that was scored ({e}); remove the line or the file"
            ))
        })
    };
    lines.enumerate().map(record).collect()
}

fn foreign(path: &Path) -> Error {
    Error::new(format!(
        "{}: is there and was not written by `duel eval`; give another --output",
        path.display()
    ))
}

/// What a key's value is known by: a file's content rather than its place.
fn identity(value: &Value) -> &Value {
    value.get("content").unwrap_or(value)
}

/// Whether the file goes on with `header`.
fn check(path: &Path, was: &Map<String, Value>, header: &Map<String, Value>) -> Result<(), Error> {
    let missing = Value::Null;
    for (key, value) in header {
        let old = was.get(key).unwrap_or(&missing);
        if identity(old) == identity(value) {
            continue;
        }
        let said = |value: &Value| match value.get("path") {
            Some(path) => format!("{path} of content {}", identity(value)),
            None => value.to_string(),
        };
        return Err(Error::new(format!(
            "{}: holds what was scored with another `{key}`: {}, now {}; give another --output, or remove the file",
            path.display(),
            said(old),
            said(value)
        )));
    }
    Ok(())
}
