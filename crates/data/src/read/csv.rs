//! Comma- and tab-separated values, with the columns' names in the first line.

use super::{Each, Source, open};
use crate::{Error, Result};
use csv::{Reader, ReaderBuilder, StringRecord};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::io::Read;
use std::path::Path;

pub(super) fn commas(path: &Path, file: Source<'_>, each: Each<'_>) -> Result<()> {
    rows(path, file, b',', each)
}

pub(super) fn tabs(path: &Path, file: Source<'_>, each: Each<'_>) -> Result<()> {
    rows(path, file, b'\t', each)
}

/// What all cells of a column are that are not empty.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Empty,
    Bool,
    Number,
    Text,
}

fn kind(cell: &str) -> Kind {
    match cell {
        "" => Kind::Empty,
        "true" | "false" | "True" | "False" | "TRUE" | "FALSE" => Kind::Bool,
        _ if cell.parse::<f64>().is_ok_and(f64::is_finite) => Kind::Number,
        _ => Kind::Text,
    }
}

impl Kind {
    /// Of a column with cells of both.
    fn with(self, other: Kind) -> Kind {
        match (self, other) {
            (Kind::Empty, kind) | (kind, Kind::Empty) => kind,
            (a, b) if a == b => a,
            _ => Kind::Text,
        }
    }

    /// A cell of such a column; an empty one is none, as pandas reads it.
    fn value(self, cell: &str) -> Value {
        match self {
            _ if cell.is_empty() => Value::Null,
            Kind::Bool => cell.eq_ignore_ascii_case("true").into(),
            Kind::Number => match cell.parse::<i64>() {
                Ok(whole) => whole.into(),
                Err(_) => cell.parse::<f64>().map_or(Value::Null, Value::from),
            },
            Kind::Text | Kind::Empty => cell.into(),
        }
    }
}

fn reader<R: Read>(of: R, delimiter: u8) -> Reader<R> {
    ReaderBuilder::new().delimiter(delimiter).from_reader(of)
}

/// Reads the file twice, since a column is of numbers where all of its cells are.
fn rows(path: &Path, file: Source<'_>, delimiter: u8, each: Each<'_>) -> Result<()> {
    // Counted once, with the rows.
    let uncounted = Cell::new(0);
    let mut first = reader(open(path, &uncounted)?, delimiter);
    let names = names(path, &mut first)?;
    let mut kinds = vec![Kind::Empty; names.len()];
    records(path, first, |_, record| {
        kinds.iter_mut().zip(record).for_each(|(all, cell)| *all = all.with(kind(cell)));
        Ok(())
    })?;
    records(path, reader(file, delimiter), |row, record| {
        let cells = names.iter().zip(&kinds).zip(record);
        let row_of: Map<String, Value> =
            cells.map(|((name, kind), cell)| (name.to_owned(), kind.value(cell))).collect();
        each(row, Value::Object(row_of))
    })
}

/// The columns' names, each of which must be there once.
fn names(path: &Path, reader: &mut Reader<Source<'_>>) -> Result<Vec<String>> {
    let header = reader.headers().map_err(|e| broken(path, 0, &e))?;
    let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
    match twice {
        Some((_, name)) => {
            Err(Error::file(path, format!("has two columns `{name}`; give each a name of its own")))
        }
        None => Ok(names),
    }
}

fn records<R: Read>(
    path: &Path,
    mut reader: Reader<R>,
    mut each: impl FnMut(usize, &StringRecord) -> Result<()>,
) -> Result<()> {
    let mut record = StringRecord::new();
    for row in 1.. {
        match reader.read_record(&mut record) {
            Ok(true) => each(row, &record)?,
            Ok(false) => break,
            Err(e) => return Err(broken(path, row, &e)),
        }
    }
    Ok(())
}

fn broken(path: &Path, row: usize, e: &csv::Error) -> Error {
    let line = e.position().map_or(String::new(), |at| format!(" (line {})", at.line()));
    let what = match e.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!(
            "has {len} cells where the first line names {expected_len} columns{line}; put cells with commas or line \
             breaks between quotes"
        ),
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8; save the file as UTF-8".into(),
        csv::ErrorKind::Io(e) => e.to_string(),
        _ => format!("cannot be read: {e}"),
    };
    if row == 0 { Error::file(path, what) } else { Error::row(Some(path), row, what) }
}
