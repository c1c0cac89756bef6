//! Files to rows, one at a time.

mod csv;
mod json;
#[cfg(feature = "parquet")]
mod parquet;
mod text;

use crate::files::Reading;
use crate::{Error, Files, Result};
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

type Source<'a> = BufReader<Box<dyn Read + 'a>>;

/// Hands every row of all files to `each`, in order, numbered through and with the columns that rows have.
pub(crate) fn rows(files: &Files, reading: &Reading, each: Each<'_>) -> Result<()> {
    let mut found: Vec<(usize, &str)> = Vec::new();
    let mut read = None;
    plain_rows(files, reading, &mut |row, part, value| {
        let form = files.form(part);
        read = read.max(Some(part));
        for (_, column) in form.wanted() {
            if value.get(column).is_some() && !found.contains(&(part, column)) {
                found.push((part, column));
            }
        }
        each(row, form.apply(value).map_err(|e| reading.wrong(files, row, e))?)
    })?;
    // A file of several may lack what the others have.
    for part in 0..read.map_or(0, |last| last + 1) {
        let form = files.form(part);
        let has = |column: &str| found.iter().any(|&(at, name)| name == column && files.form(at) == form);
        if let Some((ours, theirs)) = form.wanted().iter().find(|(_, column)| !has(column)) {
            let path = &files.parts()[part];
            return Err(Error::file(
                path,
                format!("no row has the column `{theirs}`, which is to be `{ours}`"),
            ));
        }
    }
    Ok(())
}

/// As [`rows`], with the columns that the files have: the number of a row, that of its file, and its value.
pub(crate) fn plain_rows(
    files: &Files,
    reading: &Reading,
    each: &mut dyn FnMut(usize, usize, Value) -> Result<()>,
) -> Result<()> {
    let (mut rows, mut seen) = (0, 0);
    for (part, path) in files.parts().iter().enumerate() {
        let (before, bytes) = (rows, reading.bytes.get());
        reading.begin(before);
        let read = Cell::new(0);
        rows_of(path, &read, &mut |row, value| {
            rows = before + row;
            reading.bytes.set(bytes + read.get());
            seen += 1;
            if !files.keeps(seen - 1) {
                return Ok(());
            }
            each(rows, part, value)
        })?;
        reading.bytes.set(bytes + read.get());
    }
    Ok(())
}

/// Hands every row of a file to `each`, in order; `read` counts the file's bytes. What it is of, the end of its name
/// says.
fn rows_of(path: &Path, read: &Cell<u64>, each: Each<'_>) -> Result<()> {
    let plain = if is_packed(path) { Path::new(path.file_stem().unwrap_or_default()) } else { path };
    let reader = match ending(plain).as_str() {
        "jsonl" => json::lines,
        "json" => json::array,
        "csv" => csv::commas,
        "tsv" => csv::tabs,
        "txt" => text::lines,
        // It is read from wherever its parts lie, and packs them itself.
        "parquet" if is_packed(path) => return Err(Error::file(path, PACKED)),
        #[cfg(feature = "parquet")]
        "parquet" => {
            let file = File::open(path).map_err(|e| Error::file(path, e))?;
            return parquet::rows(path, file, read, each);
        }
        #[cfg(not(feature = "parquet"))]
        "parquet" => {
            return Err(Error::file(
                path,
                "is Parquet, which this program was built without (the cargo feature `parquet`)",
            ));
        }
        _ => {
            return Err(Error::file(
                path,
                "is none of .jsonl (one object per line), .json (one array of objects), .csv, .tsv, .parquet and .txt \
                 (one text per line)",
            ));
        }
    };
    reader(path, open(path, read)?, each)
}

/// What a name ends in.
fn ending(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}

fn is_packed(path: &Path) -> bool {
    ending(path) == "gz"
}

/// The text of a file from its first letter on, unpacked where its name says that it is packed; `read` counts the
/// file's bytes.
fn open<'a>(path: &Path, read: &'a Cell<u64>) -> Result<Source<'a>> {
    let io = |e| Error::file(path, e);
    let file = Counted { file: File::open(path).map_err(io)?, read };
    let file: Box<dyn Read + 'a> = if is_packed(path) { unpacked(path, file)? } else { Box::new(file) };
    let mut file = BufReader::with_capacity(1 << 16, file);
    let start = file.fill_buf().map_err(io)?;
    if let Some(what) = no_text(start) {
        return Err(Error::file(path, what));
    }
    if start.starts_with(b"\xEF\xBB\xBF") {
        file.consume(3); // a byte-order mark, which neither JSON nor a column's name has
    }
    Ok(file)
}

const PACKED: &str = "is compressed; unpack it";

/// What a file of gzip holds.
#[cfg(feature = "gzip")]
fn unpacked<'a>(_: &Path, file: Counted<'a>) -> Result<Box<dyn Read + 'a>> {
    struct Gzip<R>(flate2::bufread::MultiGzDecoder<R>);

    impl<R: BufRead> Read for Gzip<R> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            let said = |e| format!("is no whole gzip file, download it again: {e}");
            self.0.read(buf).map_err(|e| std::io::Error::new(e.kind(), said(e)))
        }
    }

    let file = BufReader::with_capacity(1 << 16, file);
    Ok(Box::new(Gzip(flate2::bufread::MultiGzDecoder::new(file))))
}

#[cfg(not(feature = "gzip"))]
fn unpacked<'a>(path: &Path, _: Counted<'a>) -> Result<Box<dyn Read + 'a>> {
    Err(Error::file(
        path,
        "is compressed, and this program was built without the cargo feature `gzip`; unpack it",
    ))
}

/// What a file is that starts like this, where that is something else than rows in UTF-8, and what to do.
fn no_text(start: &[u8]) -> Option<&'static str> {
    const UTF16: &str = "is UTF-16, as PowerShell's > writes it; save it as UTF-8";
    const MAGIC: [(&[u8], &str); 10] = [
        (b"\xFF\xFE\0\0", "is UTF-32; save it as UTF-8"),
        (b"\0\0\xFE\xFF", "is UTF-32; save it as UTF-8"),
        (b"\xFF\xFE", UTF16),
        (b"\xFE\xFF", UTF16),
        (b"\x1F\x8B", PACKED),
        (b"PK\x03\x04", PACKED),
        (b"\x28\xB5\x2F\xFD", PACKED),
        (b"PAR1", "is a Parquet file by another name; let it end in .parquet"),
        (
            b"version https://git-lfs",
            "is a Git LFS pointer, not the file itself; download it again with git lfs",
        ),
        (b"<", "is a web page or XML, not rows; download the file itself"),
    ];
    let known = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what);
    let ascii = |b: &u8| b.is_ascii() && *b != 0;
    known.or_else(|| match start {
        [0, a, 0, b, ..] | [a, 0, b, 0, ..] if ascii(a) && ascii(b) => Some(UTF16),
        _ => None,
    })
}

/// Hands what `parse` makes of every row after the first `skip` to `each`, in order; `none` is what is wrong with
/// files without rows.
pub(crate) fn parsed<T>(
    files: &Files,
    reading: &Reading,
    skip: usize,
    none: &str,
    parse: impl Fn(usize, Value) -> std::result::Result<T, String>,
    mut each: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut seen = 0;
    rows(files, reading, &mut |row, value| {
        seen += 1;
        if seen <= skip {
            return Ok(());
        }
        each(parse(row, value).map_err(|message| reading.wrong(files, row, message))?)
    })?;
    if seen == 0 { Err(Error::file(files.name(), none)) } else { Ok(()) }
}
