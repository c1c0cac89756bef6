//! GPT-NeoX, and Pythia with it.

use super::llama::{NAMES as LLAMA_NAMES, heads, plain};
use super::{Description, activation, share};
use crate::config::{Block, Config, Mlp, NormKind};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::rope::RopeKeys;
use crate::tensors::{Names, Qkv};
use duel_backend::{Activation, Heads};

pub(crate) const GPT_NEOX: Description = Description { model_type: "gpt_neox", read };

const NAMES: Names = Names {
    class: "GPTNeoX",
    root: "gpt_neox",
    embed: "embed_in",
    qkv: Qkv::ByHead("attention.query_key_value"),
    out: "attention.dense",
    up: &["mlp.dense_h_to_4h"],
    down: "mlp.dense_4h_to_h",
    norm: "final_layer_norm",
    head: "embed_out",
    rope: Some(RopeKeys {
        theta: "rotary_emb_base",
        default_theta: 10_000.0,
        share: Some(("rotary_pct", 0.25)),
        local: None,
    }),
    bias_keys: &[("attention_bias", &["attention.query_key_value", "attention.dense"])],
    adapted: &["query_key_value"],
    ..LLAMA_NAMES
};

fn read(keys: Keys) -> Read<Config> {
    let Heads { heads, .. } = heads(keys, None)?;
    let head_dim = share(keys.need("hidden_size")?, heads, ["hidden_size", "num_attention_heads"])?;
    let config = plain(keys, Family::GptNeoX, &NAMES, Heads { heads, kv_heads: heads, head_dim })?;
    let parallel = keys.flag("use_parallel_residual")?.unwrap_or(true);
    let bias = keys.flag("attention_bias")?.unwrap_or(true);
    Ok(Config {
        eps: keys.number("layer_norm_eps")?.unwrap_or(1e-5),
        norm: NormKind::Layer,
        block: if parallel { Block::Parallel } else { Block::Pre },
        mlp: Mlp { gated: false, activation: activation(keys, "hidden_act", Activation::Gelu)? },
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: true,
        ..config
    })
}
