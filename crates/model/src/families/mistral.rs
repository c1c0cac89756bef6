//! Mistral: Llama with a window in every layer.

use super::Description;
use super::llama::{NAMES as LLAMA_NAMES, heads, plain};
use super::windows::{everywhere, window};
use crate::config::Config;
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::tensors::Names;

pub(crate) const MISTRAL: Description = Description { model_type: "mistral", read };

const NAMES: Names = Names { class: "Mistral", bias_keys: &[], ..LLAMA_NAMES };

fn read(keys: Keys) -> Read<Config> {
    let config = plain(keys, Family::Mistral, &NAMES, heads(keys, Some(8))?)?;
    Ok(Config { kinds: everywhere(keys, config.layers, window(keys, Some(4096))?)?, ..config })
}
