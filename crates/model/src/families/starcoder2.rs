//! StarCoder2: Llama with LayerNorms, biases, and a feed-forward without a gate.

use super::llama::{NAMES as LLAMA_NAMES, heads, plain};
use super::windows::{everywhere, window};
use super::{Description, activation};
use crate::config::{Config, Mlp, NormKind};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::tensors::Names;
use duel_backend::Activation;

pub(crate) const STARCODER2: Description = Description { model_type: "starcoder2", read };

const MAPS: &[&str] = &[
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.c_fc",
    "mlp.c_proj",
];

const NAMES: Names = Names {
    class: "Starcoder2",
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
    bias_keys: &[("use_bias", MAPS)],
    adapted: &[],
    ..LLAMA_NAMES
};

fn read(keys: Keys) -> Read<Config> {
    let config = plain(keys, Family::Starcoder2, &NAMES, heads(keys, Some(2))?)?;
    let bias = keys.flag("use_bias")?.unwrap_or(true);
    Ok(Config {
        eps: keys.number("norm_epsilon")?.unwrap_or(1e-5),
        norm: NormKind::Layer,
        mlp: Mlp { gated: false, activation: activation(keys, "hidden_act", Activation::GeluTanh)? },
        kinds: everywhere(keys, config.layers, window(keys, None)?)?,
        tied: keys.flag("tie_word_embeddings")?.unwrap_or(true),
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: bias,
        ..config
    })
}
