//! Tensors of the files that the config has no place for.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::family::Output;
use crate::plural::counted;
use crate::shards::Shards;
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
    let head = config.names.head();
    let known = |name: &str| used.contains(name) || is_buffer(name) || (config.tied && name == head);
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
        "{}: {} not part of the model and left out: {}{}",
        shards.listing.display(),
        counted(unused.len(), "tensor is", "of the tensors are"),
        shown.join(", "),
        if unused.len() > SHOWN { ", ..." } else { "" }
    )))
}

fn is_buffer(name: &str) -> bool {
    let ends = |b: &&str| name.strip_suffix(b).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    BUFFERS.iter().any(ends)
}

fn cause(name: &str, config: &Config, names: &HashMap<String, String>) -> Option<Cause> {
    let (own, root) = (config.names, config.names.root);
    let full = if own.without_root(name) == name { format!("{root}.{name}") } else { name.into() };
    if names.contains_key(&full) {
        return None; // it is there a second time, under its full name
    }
    let has_weight = |name: &str| {
        let weight = name.strip_suffix("bias").map(|stem| format!("{stem}weight"));
        let head = |weight: &str| config.output == Output::Logits && weight == own.head();
        weight.is_some_and(|weight| head(&weight) || names.contains_key(&weight))
    };
    match layer(name, config) {
        Some(i) if i >= config.layers => Some(Cause::Layer),
        _ if has_weight(name) || has_weight(&full) => Some(Cause::Bias),
        Some(_) => Some(Cause::Inside),
        None => None,
    }
}

/// Number of the layer that a tensor is of.
fn layer(name: &str, config: &Config) -> Option<usize> {
    let rest = config.names.without_root(name).strip_prefix(config.names.block)?.strip_prefix('.')?;
    rest.split_once('.')?.0.parse().ok()
}

fn refusal(shards: &Shards, config: &Config, reason: Cause, bad: &[&str]) -> Error {
    let what = match reason {
        Cause::Layer => {
            let last = bad.iter().filter_map(|name| layer(name, config)).max().unwrap_or_default();
            format!(
                "has no place: config.json has {}, the weights {}; take the config.json that belongs to these weights",
                counted(config.layers, "layer", "layers"),
                last.saturating_add(1)
            )
        }
        Cause::Bias => {
            format!(
                "is a bias without which the model computes something else, and {}",
                bias_advice(config, bad)
            )
        }
        Cause::Inside => {
            "is part of a layer and has no place in this `model_type`, which would compute something else without it; \
             take the config.json that belongs to these weights"
                .into()
        }
    };
    let more = if bad.len() > 1 { format!(" (and {} more)", bad.len() - 1) } else { String::new() };
    let path = shards.get(bad[0]).map_or(shards.listing.as_path(), |tensor| tensor.path);
    Error::file(path, format!("tensor `{}`{more} {what}", bad[0]))
}

/// How all of the biases `bad` get a place, if there is a way.
fn bias_advice(config: &Config, bad: &[&str]) -> String {
    let of = |name: &str, map: &str| name.strip_suffix(".bias").is_some_and(|stem| stem.ends_with(map));
    // A key asks for the biases of all its maps: where some are not there it only moves the error.
    let whole = |maps: &[&str]| maps.iter().all(|map| bad.iter().any(|name| of(name, map)));
    let fit: Vec<_> = config.names.bias_keys.iter().filter(|(_, maps)| whole(maps)).collect();
    if bad.iter().all(|name| fit.iter().any(|(_, maps)| maps.iter().any(|map| of(name, map)))) {
        let keys: Vec<String> = fit.iter().map(|(key, _)| format!("`{key}`")).collect();
        return format!("config.json does not ask for it; set {} to true there", keys.join(" and "));
    }
    "duel has no place for it; the weights are of another architecture or config, take the config.json that belongs to \
     them"
        .into()
}
