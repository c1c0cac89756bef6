//! How studies write down what they found: files in their folder, and estimates in JSON, CSV and words.

use duel_stats::Estimate;
use duel_train::Error;
use serde_json::{Value, json};
use std::path::Path;

/// Leaves files of these names and contents in `dir`.
pub fn leave<'a>(dir: &Path, files: impl IntoIterator<Item = (&'a str, String)>) -> Result<(), Error> {
    for (name, content) in files {
        duel_model::write_synced(&dir.join(name), content.as_bytes())?;
    }
    Ok(())
}

/// An estimate in JSON.
pub fn number(e: &Estimate) -> Value {
    json!({"value": e.value, "interval": e.interval.map(|(low, high)| [low, high])})
}

/// An estimate from JSON.
pub fn estimate(value: &Value) -> Option<Estimate> {
    let bounds = value["interval"].as_array();
    let interval = bounds.and_then(|of| Some((of.first()?.as_f64()?, of.get(1)?.as_f64()?)));
    Some(Estimate { value: value["value"].as_f64()?, interval })
}

/// An estimate as people read it.
pub fn shown(e: &Estimate, digits: usize) -> String {
    match e.interval {
        Some((low, high)) => format!("{:.digits$} ({low:.digits$} to {high:.digits$})", e.value),
        None => format!("{:.digits$}", e.value),
    }
}

/// An estimate as three cells of CSV: the value and its bounds.
pub fn cells(e: &Estimate) -> String {
    let bounds = e.interval.map_or(",".into(), |(low, high)| format!("{low},{high}"));
    format!("{},{bounds}", e.value)
}

/// A text as a cell of CSV (RFC 4180).
pub fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
