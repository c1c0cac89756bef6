//! Phi 1, 1.5 and 2, and Phi 3 and 4, which are Llama in fused tensors.

use super::llama::{NAMES as LLAMA_NAMES, ROPE_KEYS, heads, plain};
use super::windows::{everywhere, window};
use super::{Description, activation};
use crate::config::{Block, Config, Mlp, NormKind, QkNorm};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::rope::RopeKeys;
use crate::tensors::{Names, Qkv};
use duel_backend::Activation;

pub(crate) const PHI: Description = Description { model_type: "phi", read: first };

pub(crate) const PHI3: Description = Description { model_type: "phi3", read: third };

const NAMES: Names = Names {
    class: "Phi",
    q_norm: "self_attn.q_layernorm",
    k_norm: "self_attn.k_layernorm",
    out: "self_attn.dense",
    up: &["mlp.fc1"],
    down: "mlp.fc2",
    norm: "final_layernorm",
    rope: Some(RopeKeys { share: Some(("partial_rotary_factor", 0.5)), ..ROPE_KEYS }),
    bias_keys: &[],
    adapted: &["q_proj", "v_proj", "fc1", "fc2"],
    ..LLAMA_NAMES
};

const NAMES3: Names = Names {
    class: "Phi3",
    qkv: Qkv::Whole("self_attn.qkv_proj"),
    up: &["mlp.gate_up_proj"],
    rope: Some(RopeKeys { share: Some(("partial_rotary_factor", 1.0)), ..ROPE_KEYS }),
    bias_keys: &[],
    adapted: &[],
    ..LLAMA_NAMES
};

fn first(keys: Keys) -> Read<Config> {
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
        qk_norm: keys.flag("qk_layernorm")?.unwrap_or(false).then_some(QkNorm::LayerNorms),
        ..config
    })
}

fn third(keys: Keys) -> Read<Config> {
    let config = plain(keys, Family::Phi3, &NAMES3, heads(keys, None)?)?;
    let eps = keys.number("rms_norm_eps")?.unwrap_or(1e-5);
    Ok(Config { eps, kinds: everywhere(keys, config.layers, window(keys, None)?)?, ..config })
}
