//! Tensors of the files that the config has no place for.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::shards::Shards;
use crate::weights::HEAD;
use std::collections::{HashMap, HashSet};

/// Constants that older versions of transformers saved beside the weights.
const BUFFERS: [&str; 4] = ["rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "position_ids"];

/// Tensors that a note names.
const SHOWN: usize = 3;

/// Why a tensor cannot be left out.
#[derive(Clone, Copy, PartialEq)]
enum Cause {
    /// It is of a layer that the config does not have.
    Layer,
    /// It is the bias of a map or norm that has none by the config.
    Bias,
    /// It is something else inside a layer that the model has.
    Inside,
}

/// A line that names the tensors that are left out, if there are any; `names` are the files' names of those that are
/// not.
///
/// # Errors
/// One of them would change what the model computes.
pub(crate) fn note(
    shards: &Shards,
    config: &Config,
    names: &HashMap<String, String>,
) -> Result<Option<String>> {
    let used: HashSet<&str> = names.values().map(String::as_str).collect();
    let known = |name: &str| used.contains(name) || is_buffer(name) || (config.tied && name == HEAD);
    let unused: Vec<(&str, Option<Cause>)> =
        shards.names().filter(|name| !known(name)).map(|name| (name, cause(name, config, names))).collect();
    for reason in [Cause::Layer, Cause::Bias, Cause::Inside] {
        let bad: Vec<&str> =
            unused.iter().filter(|(_, c)| *c == Some(reason)).map(|(name, _)| *name).collect();
        if !bad.is_empty() {
            return Err(refusal(shards, config, reason, &bad));
        }
    }
    if unused.is_empty() {
        return Ok(None);
    }
    let shown: Vec<&str> = unused.iter().take(SHOWN).map(|(name, _)| *name).collect();
    Ok(Some(format!(
        "{}: {} of the tensors are not part of the model and are left out: {}{}",
        shards.listing.display(),
        unused.len(),
        shown.join(", "),
        if unused.len() > SHOWN { ", ..." } else { "" }
    )))
}

fn is_buffer(name: &str) -> bool {
    let ends = |b: &&str| name.strip_suffix(b).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    BUFFERS.iter().any(ends)
}

fn cause(name: &str, config: &Config, names: &HashMap<String, String>) -> Option<Cause> {
    let (root, _) = config.family.names();
    let full = if without_root(name, config) == name { format!("{root}.{name}") } else { name.into() };
    if names.contains_key(&full) {
        return None; // it is there a second time, under its full name
    }
    let has_weight = |name: &str| {
        let weight = name.strip_suffix("bias").map(|stem| format!("{stem}weight"));
        weight.is_some_and(|weight| weight == HEAD || names.contains_key(&weight))
    };
    match layer(name, config) {
        Some(i) if i >= config.layers => Some(Cause::Layer),
        _ if has_weight(name) || has_weight(&full) => Some(Cause::Bias),
        Some(_) => Some(Cause::Inside),
        None => None,
    }
}

fn without_root<'a>(name: &'a str, config: &Config) -> &'a str {
    let (root, _) = config.family.names();
    name.strip_prefix(root).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}

/// Number of the layer that a tensor is of.
fn layer(name: &str, config: &Config) -> Option<usize> {
    let (_, block) = config.family.names();
    let rest = without_root(name, config).strip_prefix(block)?.strip_prefix('.')?;
    rest.split_once('.')?.0.parse().ok()
}

fn refusal(shards: &Shards, config: &Config, reason: Cause, bad: &[&str]) -> Error {
    let what = match reason {
        Cause::Layer => {
            let last = bad.iter().filter_map(|name| layer(name, config)).max().unwrap_or_default();
            format!(
                "has no place: config.json has {} layers, the weights {}; take the config.json that belongs to these \
                 weights",
                config.layers,
                last.saturating_add(1)
            )
        }
        Cause::Bias => "is a bias that the model does not have by config.json, and would compute something else \
                        without: set `attention_bias` there, or take the config.json that belongs to these weights"
            .into(),
        Cause::Inside => "is part of a layer and has no place in this `model_type`, which would compute something \
                          else without it; take the config.json that belongs to these weights"
            .into(),
    };
    let more = if bad.len() > 1 { format!(" (and {} more)", bad.len() - 1) } else { String::new() };
    let path = shards.get(bad[0]).map_or(shards.listing.as_path(), |tensor| tensor.path);
    Error::file(path, format!("tensor `{}`{more} {what}", bad[0]))
}
