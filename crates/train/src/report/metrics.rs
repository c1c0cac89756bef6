//! `metrics.jsonl`: one flat JSON object per logged step, readable while the run goes on and after any crash.

use crate::Error;
use duel_disk::{Draft, File};
use serde_json::{Map, Value};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::{fs, iter};

/// One logged step: `step` and its metrics by name.
pub type Record = Map<String, Value>;

/// Appends records to a `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsWriter {
    file: File,
    path: PathBuf,
}

impl MetricsWriter {
    /// Opens the file at `path`. A fresh start (`None`) empties it; a resumed run keeps the records up to and including
    /// `resume_step`, since the steps after its checkpoint are about to be done again. A torn last line is dropped, and
    /// so is, with `unevaluated`, an evaluation after that step, which is about to be made again.
    ///
    /// # Errors
    /// The file cannot be read or written, or (on resuming) a whole line in it is not a record.
    pub fn open(path: &Path, resume_step: Option<u64>, unevaluated: bool) -> Result<Self, Error> {
        let failed = |e: std::io::Error| cannot("write", path, e);
        let kept = match resume_step {
            None => String::new(),
            Some(last) => {
                let text = read_if_there(path)?;
                let stays = |record: &Record, step| step < last || !(unevaluated && is_evaluation(record));
                let upto = |(_, record): &(&str, Record)| {
                    step_of(record).is_some_and(|step| step <= last && stays(record, step))
                };
                parse(&text, path)?.into_iter().filter(upto).map(|(line, _)| line).collect()
            }
        };
        // Whoever reads, or a crash, meets the old file or the new one, never half of one.
        let mut draft = Draft::new(path).map_err(failed)?;
        draft.write_all(kept.as_bytes()).and_then(|()| draft.keep()).map_err(failed)?;
        let file = File::append(path).map_err(failed)?;
        Ok(Self { file, path: path.into() })
    }

    /// Appends one record as a whole line.
    ///
    /// # Errors
    /// The file cannot be written, e.g. the disk is full.
    pub fn write(&mut self, record: &Record) -> Result<(), Error> {
        let mut line = serde_json::to_string(record).map_err(|e| cannot("write", &self.path, e.into()))?;
        line.push('\n');
        // One call, unbuffered: a killed process leaves at most one torn line, and only at the end.
        self.file.write_all(line.as_bytes()).map_err(|e| cannot("write", &self.path, e))
    }
}

/// The record of a step. Numbers that JSON cannot express become `null` (so do `f64`s converted with `into()`).
pub fn record(step: u64, metrics: &[(&str, Value)]) -> Record {
    let named = metrics.iter().map(|(name, value)| ((*name).to_string(), value.clone()));
    std::iter::once(("step".to_string(), step.into())).chain(named).collect()
}

/// The records of a `metrics.jsonl`, in order; none where there is no file, and without a torn last line.
///
/// # Errors
/// The file cannot be read, or a whole line in it is not a record.
pub fn read(path: &Path) -> Result<Vec<Record>, Error> {
    records(path).collect()
}

/// As [`read`], one after the other; the last is an error where one is met.
pub fn records(path: &Path) -> impl Iterator<Item = Result<Record, Error>> {
    let (mut number, mut line) = (0, Vec::new());
    let mut file = Some(fs::File::open(path).map(BufReader::new));
    iter::from_fn(move || {
        number += 1;
        line.clear();
        let said = match file.as_mut()? {
            Ok(from) => from.read_until(b'\n', &mut line).map_err(|e| cannot("read", path, e)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
            Err(e) => Err(cannot("read", path, io::Error::new(e.kind(), e.to_string()))),
        };
        let record = match said {
            // A torn line has no end.
            Ok(_) if !line.ends_with(b"\n") => None,
            Ok(_) => Some(record_of(&String::from_utf8_lossy(&line), path, number)),
            Err(e) => Some(Err(e)),
        };
        if !matches!(record, Some(Ok(_))) {
            file = None;
        }
        record
    })
}

/// Whether a record is an evaluation's, not a step's.
pub fn is_evaluation(record: &Record) -> bool {
    !record.contains_key("learning_rate")
}

/// The step of a record.
pub fn step_of(record: &Record) -> Option<u64> {
    record.get("step")?.as_u64()
}

/// Every whole line (with its line end) and what it says.
fn parse<'a>(text: &'a str, path: &Path) -> Result<Vec<(&'a str, Record)>, Error> {
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let record = |(line, number)| Ok((line, record_of(line, path, number)?));
    whole.zip(1..).map(record).collect()
}

/// What the line of a number says.
fn record_of(line: &str, path: &Path, number: usize) -> Result<Record, Error> {
    match serde_json::from_str::<Record>(line) {
        Ok(record) if step_of(&record).is_some() => Ok(record),
        _ => Err(Error::new(format!(
            "{}, line {number}: not a record of metrics (a JSON object with a step); remove the line",
            path.display()
        ))),
    }
}

fn read_if_there(path: &Path) -> Result<String, Error> {
    match fs::read(path) {
        // A line may be torn within a character; such a line has no end and is dropped.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(cannot("read", path, e)),
    }
}

fn cannot(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path in a new folder, removed with the value.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("duel-metrics-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("metrics.jsonl")
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn records_are_whole_lines_and_read_back() {
        let folder = Temporary::new("write");
        let mut writer = MetricsWriter::open(&folder.file(), None, false).unwrap();
        writer.write(&record(1, &[("loss", 0.1.into()), ("num_tokens", 7i64.into())])).unwrap();
        writer.write(&record(2, &[("loss", f64::NAN.into()), ("grad_norm", f64::INFINITY.into())])).unwrap();
        // Read while the writer is open: nothing waits in a buffer.
        let text = fs::read_to_string(folder.file()).unwrap();
        assert_eq!(
            text,
            "{\"step\":1,\"loss\":0.1,\"num_tokens\":7}\n{\"step\":2,\"loss\":null,\"grad_norm\":null}\n"
        );
        let records = read(&folder.file()).unwrap();
        assert_eq!(records.iter().map(step_of).collect::<Vec<_>>(), [Some(1), Some(2)]);
        assert_eq!(records[0]["loss"], 0.1);
        assert_eq!(records[1]["loss"], Value::Null);
    }

    #[test]
    fn a_fresh_start_empties_the_file() {
        let folder = Temporary::new("fresh");
        fs::write(folder.file(), "not even JSON\n").unwrap();
        MetricsWriter::open(&folder.file(), None, false).unwrap();
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), "");
    }

    #[test]
    fn resuming_drops_later_steps_and_a_torn_line() {
        let folder = Temporary::new("resume");
        let kept = "{\"step\":10,\"loss\":0.30000000000000004}\n{\"eval_loss\":1, \"step\":20}\n";
        fs::write(folder.file(), format!("{kept}{{\"step\":30}}\n{{\"step\":20,\"lo")).unwrap();
        assert_eq!(read(&folder.file()).unwrap().len(), 3);
        let mut writer = MetricsWriter::open(&folder.file(), Some(20), false).unwrap();
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), kept);
        writer.write(&record(30, &[("loss", 0.5.into())])).unwrap();
        assert_eq!(
            fs::read_to_string(folder.file()).unwrap(),
            format!("{kept}{{\"step\":30,\"loss\":0.5}}\n")
        );
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "the temporary file is gone");
    }

    #[test]
    fn resuming_without_a_file_starts_one() {
        let folder = Temporary::new("missing");
        MetricsWriter::open(&folder.file(), Some(5), false).unwrap().write(&record(6, &[])).unwrap();
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), "{\"step\":6}\n");
    }

    #[test]
    fn a_bad_line_is_named_and_the_file_left_alone() {
        let folder = Temporary::new("bad");
        let text = "{\"step\":1}\n{\"loss\":1}\n";
        fs::write(folder.file(), text).unwrap();
        let error = MetricsWriter::open(&folder.file(), Some(9), false).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), text);
        assert!(read(&folder.file()).is_err());
    }
}
