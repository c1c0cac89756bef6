//! SmolLM3: Llama with layers that have no positions.

use super::Description;
use super::llama::{NAMES as LLAMA_NAMES, ROPE_KEYS, heads, plain};
use super::windows::refuse_windows;
use crate::config::{Config, LayerKind, Turns};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::plural::counted;
use crate::rope::RopeKeys;
use crate::tensors::Names;

pub(crate) const SMOLLM3: Description = Description { model_type: "smollm3", read };

const NAMES: Names =
    Names { class: "SmolLM3", rope: Some(RopeKeys { default_theta: 2e6, ..ROPE_KEYS }), ..LLAMA_NAMES };

fn read(keys: Keys) -> Read<Config> {
    let config = plain(keys, Family::SmolLm3, &NAMES, heads(keys, Some(4))?)?;
    refuse_windows(keys, config.layers)?;
    let bias = keys.flag("attention_bias")?.unwrap_or(false);
    Ok(Config {
        kinds: kinds(keys, config.layers)?,
        tied: keys.flag("tie_word_embeddings")?.unwrap_or(true),
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false),
        ..config
    })
}

/// Which layers turn queries and keys: those that the list has a 1 for, or without it all but every so manieth.
fn kinds(keys: Keys, layers: usize) -> Read<Vec<LayerKind>> {
    let turning: Vec<bool> = match keys.list("no_rope_layers")? {
        Some(list) if list.len() == layers => {
            list.iter().map(|turns| *turns != 0 && *turns != false).collect()
        }
        Some(list) => {
            return Err(format!(
                "`no_rope_layers` has {} for {}",
                counted(list.len(), "entry", "entries"),
                counted(layers, "layer", "layers")
            ));
        }
        None => match keys.count("no_rope_layer_interval")?.unwrap_or(4) {
            0 => {
                return Err(
                    "`no_rope_layer_interval` is 0; it says that every so manieth layer has no RoPE".into()
                );
            }
            every => (1..=layers).map(|l| !l.is_multiple_of(every)).collect(),
        },
    };
    let kind =
        |turns| LayerKind { turns: if turns { Turns::Rope } else { Turns::Not }, ..LayerKind::default() };
    Ok(turning.into_iter().map(kind).collect())
}
