//! Parquet: rows of columns, packed, one group of rows after the other.

use super::Each;
use crate::contain::contain;
use crate::row::without_nulls;
use crate::{Error, Result};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value, json};
use std::cell::Cell;
use std::fs::File;
use std::path::Path;

pub(super) fn rows(path: &Path, file: File, read: &Cell<u64>, each: Each<'_>) -> Result<()> {
    let bytes = file.metadata().map_or(0, |m| m.len());
    let reader = contained(|| SerializedFileReader::new(file)).map_err(|e| Error::file(path, e))?;
    let metadata = reader.metadata().file_metadata();
    let total = metadata.num_rows().max(1) as u64;
    let features = features(metadata.key_value_metadata().map_or(&[][..], Vec::as_slice));
    let mut packed = contained(|| reader.get_row_iter(None)).map_err(|e| Error::file(path, e))?;
    for i in 0.. {
        let next = contained(|| packed.next().transpose().map(|row| row.map(|row| object(&row, true))));
        let Some(mut value) = next.map_err(|e| Error::row(Some(path), i + 1, e))? else { break };
        for (name, feature) in &features {
            let Some(cell) = value.get_mut(name) else { continue };
            decode(cell, feature)
                .map_err(|e| Error::row(Some(path), i + 1, format!("has `{name}`, which is no JSON: {e}")))?;
        }
        // What of the file a row takes is not known: the same of each.
        read.set((bytes as u128 * (i as u128 + 1) / u128::from(total)) as u64);
        each(i + 1, Value::Object(value))?;
    }
    Ok(())
}

/// What the library makes of a file, or why that cannot be used. Over damaged files it panics.
fn contained<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> std::result::Result<T, String> {
    let of_kind = |what: &str| format!("is of a kind that is not read: {what}");
    let damaged = |e: &str| format!("is no whole Parquet file, download it again: {e}");
    match contain(work) {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(ParquetError::NYI(what))) => Err(of_kind(&what)),
        Ok(Err(e)) => Err(damaged(&e.to_string())),
        Err(panic) => {
            let said = panic.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(said.strip_prefix("not implemented: ").map_or_else(|| damaged(&said), of_kind))
        }
    }
}

/// What `datasets` says of the columns that have JSON in them, as texts: the column and its feature.
fn features(said: &[KeyValue]) -> Map<String, Value> {
    let of_datasets =
        said.iter().find(|pair| pair.key == "huggingface").and_then(|pair| pair.value.as_deref());
    let mut read: Value = of_datasets.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut features = match read["info"]["features"].take() {
        Value::Object(features) => features,
        _ => Map::new(),
    };
    features.retain(|_, feature| has_json(feature));
    features
}

fn has_json(feature: &Value) -> bool {
    match feature {
        Value::Object(fields) => feature["_type"] == "Json" || fields.values().any(has_json),
        Value::Array(of) => of.iter().any(has_json),
        _ => false,
    }
}

/// Makes values of the texts that a feature says are JSON.
fn decode(value: &mut Value, feature: &Value) -> serde_json::Result<()> {
    if let (Value::String(text), true) = (&*value, feature["_type"] == "Json") {
        let mut read = serde_json::from_str(text)?;
        without_nulls(&mut read);
        *value = read;
        return Ok(());
    }
    match (value, feature) {
        (Value::Array(list), Value::Array(of)) => {
            list.iter_mut().zip(of.iter().cycle()).try_for_each(|(value, of)| decode(value, of))?;
        }
        // A list, by any of its names.
        (Value::Array(list), _) if !feature["feature"].is_null() => {
            list.iter_mut().try_for_each(|value| decode(value, &feature["feature"]))?;
        }
        (Value::Object(fields), _) => {
            for (name, value) in fields {
                decode(value, &feature[name.as_str()])?;
            }
        }
        _ => {}
    }
    Ok(())
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

/// A cell. What JSON has no word for, no finite number and bytes that are no text, is of a type that no column is read
/// as: one that nothing reads may hold it.
fn value(field: &Field) -> Value {
    let float =
        |x: f64| Number::from_f64(x).map_or_else(|| json!({"not finite": x.to_string()}), Value::Number);
    let binary = |bytes: &[u8]| json!({"no text": bytes.len()});
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
        Field::Bytes(bytes) => {
            std::str::from_utf8(bytes.data()).map_or_else(|_| binary(bytes.data()), Value::from)
        }
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
    use parquet::data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use serde_json::json;
    use std::sync::Arc;

    /// A file of one column, which `datasets` says more of.
    fn written<T: DataType>(column: &str, feature: Value, cells: &[T::T]) -> Vec<u8> {
        let schema = parse_message_type(&format!("message rows {{ required {column}; }}")).unwrap();
        let said = json!({"info": {"features": {"tools": feature}}}).to_string();
        let said = Some(vec![KeyValue::new("huggingface".into(), said)]);
        let properties = Arc::new(WriterProperties::builder().set_key_value_metadata(said).build());
        let mut file = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut file, Arc::new(schema), properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<T>().write_batch(cells, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        file
    }

    /// The file of a column of texts, `tools`.
    fn of_texts(feature: Value, texts: &[&str]) -> Vec<u8> {
        let cells: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
        written::<ByteArrayType>("binary tools (UTF8)", feature, &cells)
    }

    /// The rows of a file.
    fn of_file(file: &[u8]) -> Result<Vec<Value>> {
        let of_thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
        let path = std::env::temp_dir().join(format!("duel-json-{}-{of_thread}.parquet", std::process::id()));
        std::fs::write(&path, file).unwrap();
        let (mut all, bytes) = (Vec::new(), Cell::new(0));
        let read = rows(&path, File::open(&path).unwrap(), &bytes, &mut |_, row| {
            all.push(row);
            Ok(())
        });
        std::fs::remove_file(&path).unwrap();
        read.map(|()| all)
    }

    fn read(feature: Value, texts: &[&str]) -> Result<Vec<Value>> {
        of_file(&of_texts(feature, texts))
    }

    #[test]
    fn damage_is_an_error() {
        let whole = of_texts(Value::Null, &["one", "two", "two", "three"]);
        assert_eq!(of_file(&whole).unwrap().len(), 4);
        let mut refused = 0;
        for at in 0..whole.len() {
            for flip in [0xFF, 0x80, 0x11] {
                let mut damaged = whole.clone();
                damaged[at] ^= flip;
                let Err(e) = of_file(&damaged) else { continue };
                let e = e.to_string();
                assert!(e.contains(".parquet: ") && !e.contains('\n'), "byte {at}: {e}");
                refused += 1;
            }
        }
        assert!(refused > whole.len(), "{refused}");
    }

    /// The library panics over them.
    #[test]
    fn intervals_are_not_read() {
        let column = "fixed_len_byte_array(12) tools (INTERVAL)";
        let cell = FixedLenByteArray::from(vec![1; 12]);
        let e = of_file(&written::<FixedLenByteArrayType>(column, Value::Null, &[cell])).unwrap_err();
        assert!(e.to_string().contains("row 1: is of a kind that is not read: Conversion for"), "{e}");
    }

    #[test]
    fn what_datasets_calls_json_is_decoded() {
        let json = json!({"_type": "Json"});
        let text = r#"[{"name": "add", "strict": null}]"#;
        assert_eq!(read(json.clone(), &[text]).unwrap(), [json!({"tools": [{"name": "add"}]})]);
        // A text of any other kind stays one.
        let plain = json!({"dtype": "string", "_type": "Value"});
        assert_eq!(read(plain, &[text, "x"]).unwrap()[1], json!({"tools": "x"}));
        let e = read(json, &["1", "{half"]).unwrap_err().to_string();
        assert!(e.contains(", row 2") || e.contains(": row 2"), "{e}");
        assert!(e.contains("has `tools`, which is no JSON"), "{e}");
        // Inside lists and structs.
        let mut nested = json!({"role": "u", "calls": ["{\"a\": [1]}"]});
        let feature = json!({"calls": {"feature": {"_type": "Json"}, "_type": "List"}});
        assert!(has_json(&feature));
        decode(&mut nested, &feature).unwrap();
        assert_eq!(nested, json!({"role": "u", "calls": [{"a": [1]}]}));
        let mut listed = json!([{"calls": "2"}]);
        decode(&mut listed, &json!([{"calls": {"_type": "Json"}}])).unwrap();
        assert_eq!(listed, json!([{"calls": 2}]));
    }

    /// A column that nothing reads does not refuse the file.
    #[test]
    fn what_json_has_no_word_for_is_of_no_type_that_is_read() {
        let bytes = |of: &[u8]| Field::Bytes(ByteArray::from(of.to_vec()));
        for cell in [Field::Double(f64::NAN), Field::Float(f32::INFINITY), bytes(b"\xFF\xD8")] {
            assert!(value(&cell).is_object(), "{cell}");
        }
        assert_eq!((value(&bytes(b"text")), value(&Field::Double(0.5))), ("text".into(), 0.5.into()));
    }
}
