//! JSON: one object in a line, or one array of them. Neither reader ever holds more than one row.

use super::{Each, Source};
use crate::row::{UNWRAP, is_columnar, wrapped};
use crate::{Error, Result};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

pub(super) fn lines(path: &Path, mut file: Source<'_>, each: Each<'_>) -> Result<()> {
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
            let value =
                serde_json::from_slice(text).map_err(|e| Error::row(Some(path), row, broken(&e, text)))?;
            each(row, value)?;
        }
    }
    Ok(())
}

pub(super) fn array(path: &Path, mut file: Source<'_>, each: Each<'_>) -> Result<()> {
    let io = |e| Error::file(path, e);
    while let Some(&byte) = file.fill_buf().map_err(io)?.first() {
        match byte {
            b if b.is_ascii_whitespace() => file.consume(1),
            b'{' => return Err(Error::file(path, no_array(file))),
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
        (None, Err(e)) => {
            let what = match cause(&around(path, &e)) {
                Some(cause) => format!("is broken JSON: {cause} (line {}, column {})", e.line(), e.column()),
                None if e.to_string().contains("unicode code point") => {
                    format!(
                        "is not UTF-8 at line {}, column {}; save the file as UTF-8",
                        e.line(),
                        e.column()
                    )
                }
                None => format!("is broken JSON: {e}"),
            };
            Err(Error::row(Some(path), elements.row, what))
        }
        (None, Ok(())) => Ok(()),
    }
}

/// What is wrong with a `.json` that starts with an object.
fn no_array(file: Source<'_>) -> String {
    /// A wrapped list beyond this is not looked for: all of it has to be held.
    const MOST: u64 = 256 << 20;
    let mut values = serde_json::Deserializer::from_reader(file.take(MOST)).into_iter::<Value>();
    match (values.next(), values.next()) {
        (Some(Ok(Value::Object(columns))), None) => match wrapped(&columns) {
            Some(list) => format!("holds an object, and the rows lie under `{list}`; {UNWRAP}"),
            None if is_columnar(&columns) => {
                "holds columns, not rows: write an array of objects with one value of each column".into()
            }
            None if columns.values().all(Value::is_object) => {
                "holds an object of objects, not an array: if they are rows, write their values as [{...}, {...}]".into()
            }
            None => "holds one object, not an array of objects: put [ and ] around it, or write it in one line \
                     of a .jsonl"
                .into(),
        },
        _ => "holds objects, not an array; name a file with one object per line .jsonl, or put [ and ] around them \
              and commas between"
            .into(),
    }
}

/// serde_json's message without its line, which is always 1 in a `.jsonl`, or what is known better.
fn broken(e: &serde_json::Error, line: &[u8]) -> String {
    if e.is_eof() {
        return "is broken JSON: it ends in the middle; a .jsonl has one whole object in each line (an object over \
                several lines belongs into an array, [ ... ], in a .json)"
            .into();
    }
    if let Err(e) = std::str::from_utf8(line) {
        return format!("is not UTF-8 (byte {} of the line); save the file as UTF-8", e.valid_up_to() + 1);
    }
    let message = e.to_string();
    let from = e.column().saturating_sub(BEFORE).min(line.len());
    let message = match cause(&String::from_utf8_lossy(&line[from..])) {
        Some(cause) => cause,
        None => message.split(" at line ").next().unwrap_or_default(),
    };
    format!("is broken JSON: {message} (column {})", e.column())
}

/// How much of what stands before an error is looked at to find its cause.
const BEFORE: usize = 12;

/// What stands where JSON broke, given the text from a little before.
fn cause(text: &str) -> Option<&'static str> {
    let text: String = text.chars().take(2 * BEFORE).collect();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["NaN", "Infinity"]) {
        Some("NaN and Infinity are no JSON, though Python's json.dumps writes them; use null")
    } else if has(&["True", "False", "None"]) || text.contains('\'') && !text.contains('"') {
        Some("that is Python, not JSON; write rows with json.dumps")
    } else {
        None
    }
}

/// The text of a file from a little before a parser's error; empty where it cannot be read again.
fn around(path: &Path, e: &serde_json::Error) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = BufReader::new(File::open(path)?);
        for _ in 1..e.line() {
            file.skip_until(b'\n')?;
        }
        std::io::copy(
            &mut file.by_ref().take(e.column().saturating_sub(BEFORE) as u64),
            &mut std::io::sink(),
        )?;
        let mut text = Vec::new();
        file.take(2 * BEFORE as u64).read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
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
