//! SmolLM3: Llama with layers that have no positions.

use super::Description;
use super::llama::{NAMES as LLAMA_NAMES, ROPE_KEYS, heads, plain};
use super::windows::switched;
use crate::config::{Config, LayerKind, MOST_LAYERS, Turns};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::plural::counted;
use crate::rope::RopeKeys;
use crate::tensors::Names;

pub(crate) const SMOLLM3: Description = Description { model_type: "smollm3", read };

const NAMES: Names = Names {
    class: "SmolLM3",
    rope: Some(RopeKeys { default_theta: 2e6, ..ROPE_KEYS }),
    adapted: &[],
    ..LLAMA_NAMES
};

fn read(keys: Keys) -> Read<Config> {
    let config = plain(keys, Family::SmolLm3, &NAMES, heads(keys, Some(4))?)?;
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

/// Which layers turn queries and keys: those that the list has a 1 for, or without it all but every so manieth. Of the
/// others is a window that is switched on, where `layer_types` does not name its layers.
fn kinds(keys: Keys, layers: usize) -> Read<Vec<LayerKind>> {
    // Of a file that lies, no list is made.
    let layers = layers.min(MOST_LAYERS + 1);
    let turning: Vec<bool> = match keys.list("no_rope_layers")? {
        Some(list) if list.len() >= layers => {
            list.iter().take(layers).map(|turns| *turns != 0 && *turns != false).collect()
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
    let kinds = switched(keys, layers, None, |l| !turning[l])?;
    let kind = |(l, &turns): (usize, &bool)| LayerKind {
        turns: if turns { Turns::Rope } else { Turns::Not },
        window: kinds[l % kinds.len()].window,
    };
    Ok(turning.iter().enumerate().map(kind).collect())
}
