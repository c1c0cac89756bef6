//! Files to rows, one at a time: neither reader ever holds more than one row of JSON.

use crate::row::{UNWRAP, is_columnar, wrapped};
use crate::{Error, Result};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// What to do with each row: its number from 1, and its value.
pub(crate) type Each<'a> = &'a mut dyn FnMut(usize, Value) -> Result<()>;

/// A file that counts the bytes read from it.
struct Counted<'a> {
    file: File,
    read: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buf)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

type Source<'a> = BufReader<Counted<'a>>;

/// Hands every row of a `.jsonl` or `.json` file to `each`, in order; `read` counts the file's bytes.
pub(crate) fn rows(path: &Path, read: &Cell<u64>, each: Each<'_>) -> Result<()> {
    let io = |e| Error::file(path, e);
    let file = File::open(path).map_err(io)?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let reader = match extension.as_str() {
        "jsonl" => lines,
        "json" => array,
        _ => {
            return Err(Error::file(
                path,
                "is neither .jsonl (one object per line) nor .json (one array of objects)",
            ));
        }
    };
    let mut file = BufReader::with_capacity(1 << 16, Counted { file, read });
    let start = file.fill_buf().map_err(io)?;
    if let Some(what) = not_json(start) {
        return Err(Error::file(path, what));
    }
    if start.starts_with(b"\xEF\xBB\xBF") {
        file.consume(3); // a byte-order mark, which JSON does not allow
    }
    reader(path, file, each)
}

/// What a file is that starts like this, where that is something else than JSON in UTF-8, and what to do.
fn not_json(start: &[u8]) -> Option<&'static str> {
    const UTF16: &str = "is UTF-16, as PowerShell's > writes it; save it as UTF-8";
    const PACKED: &str = "is compressed; unpack it";
    const MAGIC: [(&[u8], &str); 10] = [
        (b"\xFF\xFE\0\0", "is UTF-32; save it as UTF-8"),
        (b"\0\0\xFE\xFF", "is UTF-32; save it as UTF-8"),
        (b"\xFF\xFE", UTF16),
        (b"\xFE\xFF", UTF16),
        (b"\x1F\x8B", PACKED),
        (b"PK\x03\x04", PACKED),
        (b"\x28\xB5\x2F\xFD", PACKED),
        (b"PAR1", "is a Parquet file by another name; write its rows as JSON lines"),
        (
            b"version https://git-lfs",
            "is a Git LFS pointer, not the file itself; download it again with git lfs",
        ),
        (b"<", "is a web page or XML, not JSON; download the file itself"),
    ];
    let known = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what);
    let ascii = |b: &u8| b.is_ascii() && *b != 0;
    known.or_else(|| match start {
        [0, a, 0, b, ..] | [a, 0, b, 0, ..] if ascii(a) && ascii(b) => Some(UTF16),
        _ => None,
    })
}

fn lines(path: &Path, mut file: Source<'_>, each: Each<'_>) -> Result<()> {
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

fn array(path: &Path, mut file: Source<'_>, each: Each<'_>) -> Result<()> {
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

/// Hands what `parse` makes of every row after the first `skip` to `each`, in order; `none` is what is wrong with a
/// file without rows.
pub(crate) fn parsed<T>(
    path: &Path,
    skip: usize,
    none: &str,
    parse: impl Fn(usize, Value) -> std::result::Result<T, String>,
    mut each: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut seen = 0;
    rows(path, &Cell::new(0), &mut |row, value| {
        seen += 1;
        if seen <= skip {
            return Ok(());
        }
        each(parse(row, value).map_err(|message| Error::row(Some(path), row, message))?)
    })?;
    if seen == 0 { Err(Error::file(path, none)) } else { Ok(()) }
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
