//! Numbers of another implementation, and how far ours may be from them.

use duel_model::{Config, Model};
use serde_json::Value;
use std::collections::BTreeMap;

/// A list of numbers.
pub fn numbers(json: &Value) -> Vec<f64> {
    json.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// A list of token ids.
pub fn ids(json: &Value) -> Vec<u32> {
    json.as_array().expect("a list").iter().map(|x| x.as_u64().expect("a token id") as u32).collect()
}

/// `|got - want| <= bound · scale`, element by element.
///
/// # Panics
/// When that is not so.
#[track_caller]
pub fn assert_close(what: &str, got: &[f64], want: &[f64], bound: f64, scale: f64) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= bound * scale, "{what}[{i}]: {g}, expected {w}");
    }
}

/// The tensors of the Hugging Face file that each of our parameters is made of, in the file's own order of elements.
pub fn file_tensors(config: &Config, parameters: &[Vec<f64>]) -> BTreeMap<String, Vec<f64>> {
    let manifest = Model::manifest(config);
    let mut tensors = BTreeMap::new();
    for (shape, values) in manifest.iter().into_iter().zip(parameters) {
        let mut rows = values.chunks_exact(shape.cols);
        for piece in &shape.pieces {
            let ours: Vec<&[f64]> = rows.by_ref().take(piece.rows).collect();
            let rows: Vec<&[f64]> = (0..piece.rows).map(|i| ours[piece.place(i)]).collect();
            let values = match shape.transposed {
                true => (0..shape.cols).flat_map(|c| rows.iter().map(move |row| row[c])).collect(),
                false => rows.concat(),
            };
            tensors.insert(piece.name.clone(), values);
        }
        assert_eq!(rows.len(), 0, "the pieces cover every row");
    }
    tensors
}

/// A norm as PyTorch takes it, squares summed in eight lanes of single precision: over the hundred thousand elements of
/// an embedding that is up to 3e-5 below the one in double precision, over a million 1.5e-4.
fn single_norm(values: &[f64]) -> f64 {
    let mut lanes = [0.0f32; 8];
    for part in values.chunks(lanes.len()) {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane += *x as f32 * *x as f32;
        }
    }
    f64::from(lanes.iter().sum::<f32>().sqrt())
}

/// Every gradient's norm, and its first elements, by the names of the file. `rounding` is what the terms of one that
/// cancel may leave.
///
/// # Panics
/// When one is another.
pub fn check_gradients(config: &Config, grads: &[Vec<f64>], expected: &Value, rounding: f64) {
    let got = file_tensors(config, grads);
    let expected = expected.as_object().expect("an object");
    let mut names: Vec<&String> = expected.keys().collect();
    names.sort();
    assert_eq!(got.keys().collect::<Vec<_>>(), names);
    for (name, values) in &got {
        let want = expected[name]["norm"].as_f64().expect("a number");
        assert_close(
            &format!("norm of the gradient of {name}"),
            &[single_norm(values)],
            &[want],
            1e-5 * want + rounding,
            1.0,
        );
        let head = numbers(&expected[name]["head"]);
        // An element is a sum that may cancel: it is as exact as the gradient is large.
        assert_close(
            &format!("gradient of {name}"),
            &values[..head.len()],
            &head,
            1e-5 * want + rounding,
            1.0,
        );
    }
}
