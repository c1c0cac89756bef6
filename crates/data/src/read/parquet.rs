//! Parquet: rows of columns, packed, one group of rows after the other.

use super::Each;
use crate::{Error, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fs::File;
use std::path::Path;

pub(super) fn rows(path: &Path, file: File, read: &Cell<u64>, each: Each<'_>) -> Result<()> {
    let bytes = file.metadata().map_or(0, |m| m.len());
    let reader = SerializedFileReader::new(file).map_err(|e| Error::file(path, unreadable(&e)))?;
    let total = reader.metadata().file_metadata().num_rows().max(1) as u64;
    let packed = reader.get_row_iter(None).map_err(|e| Error::file(path, unreadable(&e)))?;
    for (i, row) in packed.enumerate() {
        let row = row.map_err(|e| Error::row(Some(path), i + 1, unreadable(&e)))?;
        let value = object(&row, true);
        // What of the file a row takes is not known: the same of each.
        read.set((bytes as u128 * (i as u128 + 1) / u128::from(total)) as u64);
        each(i + 1, Value::Object(value))?;
    }
    Ok(())
}

fn unreadable(e: &ParquetError) -> String {
    match e {
        ParquetError::NYI(what) => format!("is of a kind that is not read: {what}"),
        _ => format!("is no whole Parquet file, download it again: {e}"),
    }
}

/// A struct without its nulls: Parquet gives every key to each, whether a row had it or not. A column that is a struct
/// of lists becomes the list of structs that it was made of, as older versions of `datasets` wrote messages.
fn object(row: &Row, columns: bool) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, field) in row.get_column_iter() {
        let value = value(field);
        let value = if columns { structs(value) } else { value };
        if columns || !value.is_null() {
            all.insert(name.clone(), value);
        }
    }
    all
}

/// The list of structs that a struct of lists of messages was made of; anything else as it is.
fn structs(value: Value) -> Value {
    let is_messages = |of: &Map<String, Value>| {
        [("role", "content"), ("from", "value")].iter().any(|(who, what)| {
            let list = |name: &str| of.get(name).and_then(Value::as_array).map(Vec::len);
            list(who).is_some() && list(who) == list(what)
        })
    };
    match value {
        Value::Object(lists) if is_messages(&lists) => {
            let mut all: Vec<Map<String, Value>> = Vec::new();
            for (name, list) in lists {
                let Value::Array(list) = list else { continue };
                all.resize_with(all.len().max(list.len()), Map::new);
                for (one, value) in all.iter_mut().zip(list).filter(|(_, value)| !value.is_null()) {
                    one.insert(name.clone(), value);
                }
            }
            all.into_iter().map(Value::Object).collect()
        }
        other => other,
    }
}

/// A cell. What JSON has no word for, no finite number and bytes that are no text, is null: a column that nothing reads
/// may hold it, and one that is read misses it.
fn value(field: &Field) -> Value {
    let float = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(x) => (*x).into(),
        Field::Byte(x) => (*x).into(),
        Field::Short(x) => (*x).into(),
        Field::Int(x) => (*x).into(),
        Field::Long(x) => (*x).into(),
        Field::UByte(x) => (*x).into(),
        Field::UShort(x) => (*x).into(),
        Field::UInt(x) => (*x).into(),
        Field::ULong(x) => (*x).into(),
        Field::Float16(x) => float((*x).into()),
        Field::Float(x) => float((*x).into()),
        Field::Double(x) => float(*x),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        Field::Group(row) => Value::Object(object(row, false)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let named = |(key, field): &(Field, Field)| match value(key) {
                Value::String(key) => (key, value(field)),
                other => (other.to_string(), value(field)),
            };
            Value::Object(map.entries().iter().map(named).collect())
        }
        // Dates, times and decimals: as text, which is what a column that nothing reads may hold.
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::ByteArray;

    /// A column that nothing reads does not refuse the file.
    #[test]
    fn what_json_has_no_word_for_is_null() {
        let bytes = |of: &[u8]| Field::Bytes(ByteArray::from(of.to_vec()));
        for cell in [Field::Double(f64::NAN), Field::Float(f32::INFINITY), bytes(b"\xFF\xD8")] {
            assert!(value(&cell).is_null(), "{cell}");
        }
        assert_eq!((value(&bytes(b"text")), value(&Field::Double(0.5))), ("text".into(), 0.5.into()));
    }
}
