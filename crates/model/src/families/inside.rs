//! Text models inside models that see pictures too: their part of the `config.json`, as that of a model of their own.

use crate::keys::{Keys, Read};
use crate::score;
use serde_json::{Map, Value};

/// A model that has a text model inside.
struct Whole {
    model_type: &'static str,
    /// The text model's `model_type`, and the class of transformers that loads it alone.
    text: (&'static str, &'static str),
    /// What transformers takes for keys that the text model's part leaves out, and that a text model's own file has to
    /// have.
    defaults: &'static [(&'static str, u64)],
}

const WHOLES: [Whole; 1] = [Whole {
    model_type: "gemma3",
    text: ("gemma3_text", "Gemma3ForCausalLM"),
    defaults: &[
        ("vocab_size", 262_208),
        ("hidden_size", 2304),
        ("intermediate_size", 9216),
        ("num_hidden_layers", 26),
        ("num_attention_heads", 8),
        ("max_position_embeddings", 131_072),
    ],
}];

/// Key of the text model's part.
const PART: &str = "text_config";

/// Keys of the whole that say something of the text model.
const SHARED: [&str; 6] =
    ["dtype", "torch_dtype", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"];

/// The `config.json` of the text model inside the model that `json` is of; `None` where that is none that has one.
///
/// # Errors
/// There is one that cannot be read alone.
pub(crate) fn text_model(json: &Map<String, Value>) -> Read<Option<Map<String, Value>>> {
    let keys = Keys::new(json);
    let model_type = keys.text("model_type")?.unwrap_or_default();
    let Some(whole) = WHOLES.iter().find(|whole| whole.model_type == model_type) else { return Ok(None) };
    let Some(Value::Object(part)) = json.get(PART) else {
        return Err(format!("lacks `{PART}`, which describes the text model of a {model_type}"));
    };
    if let Some(class) = score::class(json) {
        return Err(format!(
            "the model is a {class}; of models that see pictures too duel knows language models alone"
        ));
    }
    let mut text = part.clone();
    for (key, value) in whole.defaults {
        text.entry(*key).or_insert((*value).into());
    }
    for key in SHARED {
        if let Some(value) = keys.get(key) {
            text.insert(key.into(), value.clone());
        }
    }
    let (model_type, class) = whole.text;
    text.insert("model_type".into(), model_type.into());
    text.insert("architectures".into(), vec![class].into());
    Ok(Some(text))
}

const INSIDE: &str = "language_model.";

/// What the whole calls a tensor of the text model while transformers computes, where that is another name.
pub(crate) fn whole_name(name: &str) -> Option<String> {
    name.strip_prefix("model.").map(|name| format!("model.{INSIDE}{name}"))
}

/// What the text model calls a tensor of the whole: transformers puts `language_model` before its names in files, and
/// between them and the root while it computes. Other tensors are no part of it.
pub(crate) fn text_name(name: &str) -> Option<String> {
    match name.strip_prefix("model.").and_then(|name| name.strip_prefix(INSIDE)) {
        Some(name) => Some(format!("model.{name}")),
        None => name.strip_prefix(INSIDE).map(str::to_owned),
    }
}
