//! What to tell a user whose files lack a tensor.

use crate::config::Config;
use crate::error::Error;
use crate::score::{self, SCORE};
use crate::shards::Shards;

/// What stands before the names of a model that is a part of another thing, and what to do about it.
const WRAPPERS: [(&str, &str); 3] = [
    (
        "base_model.model.",
        "the model is wrapped by PEFT; merge the adapter into it first (merge_and_unload) and give the folder of the \
         merged model",
    ),
    ("model.language_model.", VISION),
    ("language_model.", VISION),
];
const VISION: &str =
    "it is a part of a vision-language model; take its text model, saved on its own with its own config.json";

/// The error for a tensor of the manifest that the files do not have.
pub(crate) fn missing(shards: &Shards, config: &Config, name: &str) -> Error {
    let said = config.json.get("tie_word_embeddings").is_some_and(|v| !v.is_null());
    let head = config.names.head();
    let why = match (wrapped(shards, config, name), name) {
        (Some((stored, what)), _) => format!(", but `{stored}` is there: {what}"),
        (None, name) if name == head && said => {
            ", and `tie_word_embeddings` is false in config.json; set it to true if the head is the embedding"
                .into()
        }
        (None, name) if name == head => {
            ", and config.json does not set `tie_word_embeddings`; set it to true if the head is the embedding"
                .into()
        }
        (None, SCORE) => format!(
            ", and `architectures` in config.json says {}; name the language model's class there if it is one",
            score::class(&config.json).unwrap_or_default()
        ),
        (None, _) => "; config.json asks for it".into(),
    };
    let reward = match shards.get(SCORE).filter(|_| name == head) {
        Some(_) => format!(
            "; or, if this is the reward model that `{SCORE}` is of, name its class {} in `architectures` there",
            score::class_of(config.names)
        ),
        None => String::new(),
    };
    Error::file(&shards.listing, format!("tensor `{name}` is missing{why}{reward}"))
}

/// The name of the tensor in the files behind a wrapper's, and what that means.
fn wrapped(shards: &Shards, config: &Config, name: &str) -> Option<(String, &'static str)> {
    let short = config.names.without_root(name);
    WRAPPERS.iter().find_map(|(wrapper, what)| {
        let mut stored = [name, short].into_iter().map(|name| format!("{wrapper}{name}"));
        Some((stored.find(|stored| shards.get(stored).is_some())?, *what))
    })
}
