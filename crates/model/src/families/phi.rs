//! Phi 1, 1.5 and 2, and Phi 3 and 4, which are Llama in fused tensors.

use super::llama::{NAMES as LLAMA_NAMES, ROPE_KEYS, heads, plain};
use super::windows::{everywhere, window};
use super::{Description, activation};
use crate::config::{Block, Config, Mlp, NormKind};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::rope::RopeKeys;
use crate::tensors::{Names, Qkv};
use duel_backend::Activation;

pub(crate) const PHI: Description = Description { model_type: "phi", read: first };

pub(crate) const PHI3: Description = Description { model_type: "phi3", read: third };

const NAMES: Names = Names {
    class: "Phi",
    out: "self_attn.dense",
    up: &["mlp.fc1"],
    down: "mlp.fc2",
    norm: "final_layernorm",
    rope: Some(RopeKeys { share: Some(("partial_rotary_factor", 0.5)), ..ROPE_KEYS }),
    bias_keys: &[],
    ..LLAMA_NAMES
};

const NAMES3: Names = Names {
    class: "Phi3",
    qkv: Qkv::Whole("self_attn.qkv_proj"),
    up: &["mlp.gate_up_proj"],
    rope: Some(RopeKeys { share: Some(("partial_rotary_factor", 1.0)), ..ROPE_KEYS }),
    bias_keys: &[],
    ..LLAMA_NAMES
};

fn first(keys: Keys) -> Read<Config> {
    if keys.flag("qk_layernorm")? == Some(true) {
        return Err("`qk_layernorm` is true; a LayerNorm of query and key heads is not known".into());
    }
    let config = plain(keys, Family::Phi, &NAMES, heads(keys, None)?)?;
    Ok(Config {
        eps: keys.number("layer_norm_eps")?.unwrap_or(1e-5),
        norm: NormKind::Layer,
        block: Block::ParallelOneNorm,
        mlp: Mlp { gated: false, activation: activation(keys, "hidden_act", Activation::GeluTanh)? },
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        head_bias: true,
        ..config
    })
}

fn third(keys: Keys) -> Read<Config> {
    let config = plain(keys, Family::Phi3, &NAMES3, heads(keys, None)?)?;
    let window = if keys.get("sliding_window").is_some() { window(keys, 4096)? } else { None };
    let eps = keys.number("rms_norm_eps")?.unwrap_or(1e-5);
    Ok(Config { eps, kinds: everywhere(keys, config.layers, window)?, ..config })
}
