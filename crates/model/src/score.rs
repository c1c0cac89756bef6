//! The scalar head of a reward model: one score a text, in the place of the language model's head.

use crate::family::Output;
use crate::keys::{Keys, Read};
use crate::tensors::Names;
use duel_random::SplitMix;
use serde_json::{Map, Value, json};
use std::f64::consts::TAU;

/// Name of the head in every file.
pub(crate) const SCORE: &str = "score.weight";

/// End of the names of transformers' classes of models with such a head.
const CLASS: &str = "ForSequenceClassification";

/// The class that a config names, where it has a scalar head.
pub(crate) fn class(json: &Map<String, Value>) -> Option<&str> {
    json.get("architectures")?.get(0)?.as_str().filter(|class| class.ends_with(CLASS))
}

/// The class of transformers for a family's models with a scalar head.
pub(crate) fn class_of(names: &Names) -> String {
    format!("{}{CLASS}", names.class)
}

/// What the model gives, by the class and the labels that a config names.
pub(crate) fn read(keys: Keys, json: &Map<String, Value>) -> Read<Output> {
    let Some(class) = class(json) else { return Ok(Output::Logits) };
    let labels = keys.object("id2label")?.map(|labels| labels.iter().count());
    for (key, labels) in [("num_labels", keys.count("num_labels")?), ("id2label", labels)] {
        if let Some(n) = labels.filter(|n| *n != 1) {
            return Err(format!(
                "`{key}` gives the {class} {n} labels; duel knows models of one score a text, with one label"
            ));
        }
    }
    Ok(Output::Score)
}

/// Makes a config that of a model with a scalar head. What says so already stays as it is.
pub(crate) fn write(names: &Names, json: &mut Map<String, Value>, pad: Option<u64>) {
    if class(json).is_none() {
        json.insert("architectures".into(), json!([class_of(names)]));
    }
    if json.get("id2label").and_then(Value::as_object).is_none_or(|labels| labels.len() != 1) {
        json.insert("num_labels".into(), 1.into());
        json.insert("id2label".into(), json!({"0": "LABEL_0"}));
        json.insert("label2id".into(), json!({"LABEL_0": 0}));
    }
    // Without one transformers refuses batches of several texts.
    if let Some(pad) = pad {
        json.insert("pad_token_id".into(), pad.into());
    }
}

/// A fresh head: normal with deviation 1/sqrt(width + 1) (Stiennon et al., 2020), by Box and Muller's method. Rounded
/// to single precision, as a file would hold it: weights in bf16 and their masters come from one number.
pub(crate) fn fresh(width: usize, seed: u64) -> impl Iterator<Item = f64> {
    let mut random = SplitMix::new(seed ^ u64::from_le_bytes(*b"score hd"));
    // In 0..1, without 0: the logarithm is finite.
    let mut uniform = move || ((random.number() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let deviation = deviation(width);
    std::iter::repeat_with(move || {
        let radius = (-2.0 * uniform().ln()).sqrt();
        f64::from((deviation * radius * (TAU * uniform()).cos()) as f32)
    })
}

/// Deviation of a fresh head's weights.
pub(crate) fn deviation(width: usize) -> f64 {
    1.0 / (width as f64 + 1.0).sqrt()
}
