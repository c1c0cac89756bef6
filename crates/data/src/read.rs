//! Files to rows, one at a time: neither reader ever holds more than one row of JSON.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;

use crate::{Error, Result};

/// What to do with each row: its number from 1, and its value.
pub(crate) type Each<'a> = &'a mut dyn FnMut(usize, Value) -> Result<()>;

/// Hands every row of a `.jsonl` or `.json` file to `each`, in order.
pub(crate) fn rows(path: &Path, each: Each<'_>) -> Result<()> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let read = match extension.as_str() {
        "jsonl" => lines,
        "json" => array,
        _ => {
            return Err(Error::file(
                path,
                "is neither .jsonl (one object per line) nor .json (one array of objects)",
            ));
        }
    };
    let io = |e| Error::file(path, e);
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(io)?);
    if file.fill_buf().map_err(io)?.starts_with(b"\xEF\xBB\xBF") {
        file.consume(3); // a byte-order mark, which JSON does not allow
    }
    read(path, file, each)
}

fn lines(path: &Path, mut file: BufReader<File>, each: Each<'_>) -> Result<()> {
    let mut line = Vec::new();
    for row in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(|e| Error::file(path, e))? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if row == 1 && text.starts_with(b"[") {
            return Err(Error::row(
                Some(path),
                1,
                "starts a JSON array; name a file that holds one array .json",
            ));
        }
        if !text.is_empty() {
            let value = serde_json::from_slice(text).map_err(|e| Error::row(Some(path), row, broken(&e)))?;
            each(row, value)?;
        }
    }
    Ok(())
}

fn array(path: &Path, mut file: BufReader<File>, each: Each<'_>) -> Result<()> {
    let io = |e| Error::file(path, e);
    while let Some(&byte) = file.fill_buf().map_err(io)?.first() {
        match byte {
            b if b.is_ascii_whitespace() => file.consume(1),
            b'{' => {
                return Err(Error::file(
                    path,
                    "holds objects, not an array; name a file with one object per line .jsonl",
                ));
            }
            _ => break,
        }
    }
    let mut elements = Elements { row: 0, failed: None, each };
    let mut json = serde_json::Deserializer::from_reader(file.by_ref());
    let parsed = json.deserialize_seq(&mut elements).and_then(|()| json.end());
    match (elements.failed, parsed) {
        (Some(failed), _) => Err(failed),
        (None, Err(e)) if elements.row == 0 => {
            Err(Error::file(path, format!("is not an array of objects: {e}")))
        }
        (None, Err(e)) => Err(Error::row(Some(path), elements.row, format!("is broken JSON: {e}"))),
        (None, Ok(())) => Ok(()),
    }
}

/// serde_json's message without its line, which is always 1 in a `.jsonl`.
fn broken(e: &serde_json::Error) -> String {
    let message = e.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    format!("is broken JSON: {message} at column {}", e.column())
}

struct Elements<'a> {
    row: usize,
    failed: Option<Error>,
    each: Each<'a>,
}

impl<'de> Visitor<'de> for &mut Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        loop {
            // Counted before it is parsed, so that a broken element has its own number.
            self.row += 1;
            let Some(value) = seq.next_element()? else { return Ok(()) };
            if let Err(e) = (self.each)(self.row, value) {
                self.failed = Some(e);
                return Err(A::Error::custom("")); // only stops the parser; `failed` is the error
            }
        }
    }
}
