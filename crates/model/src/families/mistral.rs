//! Mistral: Llama with a window in every layer.

use super::Description;
use super::llama::{NAMES as LLAMA_NAMES, heads, plain};
use super::windows::{sliding, window};
use crate::config::{Config, LayerKind};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::tensors::Names;

pub(crate) const MISTRAL: Description = Description { model_type: "mistral", read };

const NAMES: Names = Names { class: "Mistral", bias_keys: &[], ..LLAMA_NAMES };

fn read(keys: Keys) -> Read<Config> {
    let mut heads = heads(keys)?;
    if keys.get("num_key_value_heads").is_none() && !keys.is_null("num_key_value_heads") {
        heads.kv_heads = 8;
    }
    let window = window(keys, 4096)?;
    let config = plain(keys, Family::Mistral, &NAMES, heads)?;
    if sliding(keys, config.layers, |_| window.is_some())?.contains(&window.is_none()) {
        return Err(
            "`layer_types` is there; layers of this family are all alike, as `sliding_window` says".into()
        );
    }
    Ok(Config { kinds: vec![LayerKind { window, ..LayerKind::default() }], ..config })
}
