//! Which files of a model's repository are read.

use crate::error::{Error, Result};
use crate::tree::Tree;
use serde_json::Value;
use std::collections::BTreeSet;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// What is read where it is there.
const OPTIONAL: [&str; 9] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    TOKENIZER,
    "tokenizer_config.json",
    "vocab.json",
];

/// Whether a file is read where it is there: the tokenizer's, chat templates, defaults for generation, and what a
/// reward model's values are brought to one scale by.
fn is_optional(path: &str) -> bool {
    let template = path.strip_prefix("additional_chat_templates/");
    OPTIONAL.contains(&path)
        || path == "reward_normalization.json"
        || template.is_some_and(|name| name.ends_with(".jinja") && !name.contains('/'))
}

/// The files of a model, or of an adapter, that duel reads: not weights in other formats.
///
/// # Errors
/// One that is needed is not there, or cannot be had.
pub(crate) fn files(tree: &mut dyn Tree) -> Result<Vec<String>> {
    let mut all: Vec<String> = tree.paths().iter().filter(|path| is_optional(path)).cloned().collect();
    let is_model = tree.has(SINGLE) || tree.has(INDEX);
    let needed: Vec<String> = match (is_model, tree.has(ADAPTER[0])) {
        (false, true) => ADAPTER.map(String::from).into(),
        (true, _) if tree.has(SINGLE) => [CONFIG, TOKENIZER, SINGLE].map(String::from).into(),
        (true, _) => {
            let shards = shards(tree)?;
            [CONFIG, TOKENIZER, INDEX].map(String::from).into_iter().chain(shards).collect()
        }
        (false, false) => return Err(tree.wrong(&no_weights(tree))),
    };
    if let Some(lacking) = needed.iter().find(|path| !tree.has(path)) {
        return Err(tree.wrong(&format!("lacks {lacking}")));
    }
    all.extend(needed.into_iter().filter(|path| !is_optional(path)));
    Ok(all)
}

/// What is wrong with a repository without weights that are read.
fn no_weights(tree: &dyn Tree) -> String {
    let others = [".bin", ".gguf", ".pth", ".h5", ".msgpack", ".onnx"];
    let other = tree.paths().iter().find(|path| others.iter().any(|ending| path.ends_with(ending)));
    match other {
        Some(other) => format!(
            "lacks {SINGLE}: it has {other}, and weights are read as safetensors; many a repository has them at the \
             revision refs/pr/1 or another"
        ),
        None => format!("lacks {SINGLE}"),
    }
}

/// The files that an index names.
fn shards(tree: &mut dyn Tree) -> Result<BTreeSet<String>> {
    let text = tree.text(INDEX)?;
    let named = serde_json::from_str::<Value>(&text).ok();
    let named = named.as_ref().and_then(|index| index["weight_map"].as_object());
    let damaged =
        || Error::new(format!("{}; download it again", tree.wrong(&format!("has a damaged {INDEX}"))));
    let named = named.ok_or_else(damaged)?;
    let is_plain = |name: &str| name.ends_with(".safetensors") && !name.contains(['/', '\\']);
    named
        .values()
        .map(|name| name.as_str().filter(|name| is_plain(name)).map(str::to_owned).ok_or_else(damaged))
        .collect()
}
